"""The page of recognition: what it shows, hostile names as text, nothing fetched; seen in a real browser."""

import doctest

import numpy as np
import pytest

from lmr.evaluation.pages import recognition as recognition_page
from lmr.evaluation.pages.pictures import thumbnail
from lmr.evaluation.pages.recognition import (
    Attraction,
    NamedQuery,
    Photo,
    RecognitionPage,
    SuspectLabel,
    precision_at_confidence,
    render_recognition,
)
from tests.support.browser import browser, needs_browser
from tests.support.small_run import jpeg

HOSTILE = "<script>document.title='owned'</script>\x1b[31m"
PIXEL = thumbnail(jpeg(90), 64)


def page(**more):
    return RecognitionPage(
        run="first",
        scores={"1 neighbours": 0.5, "2 votes": 0.75},
        accuracy=0.8,
        confidence=np.array([0.9, 0.7, 0.6, 0.2]),
        right=np.array([True, False, True, False]),
        shows=np.array([True, True, True, False]),
        confused=[
            NamedQuery(
                query=Photo(name=HOSTILE, picture=PIXEL),
                landmark=HOSTILE,
                confidence=0.7,
                right=("zoo",),
                photo=Photo(name="g1", picture=PIXEL),
            )
        ],
        n_confused=1,
        attractions=[Attraction(landmark=HOSTILE, wrong=3, without_landmark=2, right=1)],
        suspects=[
            SuspectLabel(
                photo=Photo(name="g2", picture=PIXEL),
                label="zoo",
                neighbour=Photo(name="g3"),
                neighbour_label="mill",
                others=2,
                own=0,
            )
        ],
        n_suspects=1,
        **more,
    )


def test_worked_examples():
    result = doctest.testmod(recognition_page)
    assert result.attempted >= 1
    assert result.failed == 0


def test_precision_falls_and_rises_with_what_is_right():
    thresholds, precision = precision_at_confidence(np.array([3.0, 1.0, 2.0]), np.array([True, True, False]))
    assert thresholds.tolist() == [3.0, 2.0, 1.0]
    assert precision == pytest.approx([1, 1 / 2, 2 / 3])
    assert [len(one) for one in precision_at_confidence(np.empty(0), np.empty(0, bool))] == [0, 0]


def test_names_are_text_and_nothing_is_fetched():
    text = render_recognition(page())
    assert "<script" not in text
    assert "\x1b" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "0.750" in text


def test_parts_without_anything_are_left_out():
    text = render_recognition(RecognitionPage(run="r", suspects=()))
    assert "GAP" not in text
    assert "Wrong names" not in text
    assert "None: no photo has more verified neighbours" in text


@needs_browser
@pytest.mark.slow
@pytest.mark.system
def test_it_is_seen_in_a_browser(tmp_path):
    (tmp_path / "recognition.html").write_text(render_recognition(page()))
    with browser(tmp_path / "profile") as window:
        window.open(f"file://{tmp_path}/recognition.html")
        assert window.run("return document.title") == "first · recognition · lmr"
        assert window.run("return document.querySelectorAll('section').length") == 5
        assert window.run("return document.querySelectorAll('.plot .mark').length") == 4
        assert window.run("return document.querySelectorAll('.cases .card').length") == 2
        # No picture is broken, and nothing is wider than the window.
        assert window.run("return [...document.images].every(one => one.naturalWidth > 0)")
        assert window.run(
            "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
