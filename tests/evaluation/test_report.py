"""The report page: whole, escaped, with nothing fetched, and its figures where they belong."""

import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import lmr
from lmr.errors import LmrError
from lmr.evaluation import report as report_module
from lmr.evaluation.pictures import data_uri
from lmr.evaluation.report import (
    QueryExample,
    Report,
    StepCost,
    StepScore,
    Undecoded,
    VerifiedPair,
    pick_queries,
    render_report,
)
from lmr.evaluation.scorers import Scores

PICTURE = data_uri(b"a picture")
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects what tests look for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script") and data.strip():
            self.text.append(" ".join(data.split()))

    def all(self, tag, **attributes):
        return [a for t, a in self.tags if t == tag and attributes.items() <= a.items()]


def scores(*values):
    return Scores(tuple(f"q{n}" for n in range(len(values))), np.array(values, dtype=float))


def cost(step, **changes):
    figures = {"shards_made": 3, "rows": 1200, "n_bytes": 2_500_000, "seconds": 30.0}
    return StepCost(**{"step": step, "peak_memory_bytes": 700_000_000, **figures, **changes})


def full():
    return Report(
        run="dev",
        about="a line",
        facts={"gallery photos": "1,473"},
        scores=[
            StepScore(step="search", scores=scores(0.5, 0.1, np.nan, 0.6)),
            StepScore(step="verify", scores=scores(0.9, 0.0, np.nan, 0.6)),
            StepScore(step="expand", scores=scores(0.6, 0.0, np.nan, 0.6)),
        ],
        costs=[cost("search", seconds=10.0), cost("verify", seconds=40.0, shards_found=7, shards_failed=1)],
        undecoded=[
            Undecoded(photo_id=f"u{n}", reason="cut short" if n < 2 else "no image") for n in range(3)
        ],
        settings={"verify": {"min_inliers": 40}},
        queries=[
            QueryExample(
                query_id="q0",
                photo=PICTURE,
                why="largest gain",
                rankings={"search": ["g1", "g2", *(f"x{n}" for n in range(20))], "verify": ["g2", "g1"]},
                relevant=["g2", "g3"],
                landmark="tower",
            ),
            QueryExample(query_id="q9", photo=PICTURE, why="no answer known", rankings={"verify": ["g2"]}),
        ],
        pairs=[VerifiedPair(query_id="q0", gallery_id="g2", picture=PICTURE, n_inliers=57, relevant=True)],
        thumbnails={"g1": PICTURE, "g2": data_uri(b"another"), "unused": data_uri(b"not shown")},
    )


def test_the_whole_page():
    page = Page(render_report(full()))
    assert page.text[page.text.index("Landmark search") + 1] == "dev"
    links = {a["href"].removeprefix("#") for a in page.all("a")}
    assert links == {a["id"] for a in page.all("section")}
    assert links == {"scores", "cost", "queries", "pairs", "undecoded", "settings"}
    for expected in ("tower", "57 inliers", "same landmark", "min_inliers", "40", "2 right photos", "1,473"):
        assert expected in page.text


def test_scores_are_compared_with_the_step_before():
    text = " ".join(Page(render_report(full())).text)
    assert "over 3 queries" in text
    assert "search 0.400 – – –" in text
    assert "verify 0.500 +0.100 1 1" in text
    assert "expand 0.400 \N{MINUS SIGN}0.100 0 1" in text
    assert "mAP@100 0.400 ±0.000 since search" in text


def test_bars_are_as_long_as_their_figures():
    page = Page(render_report(full()))
    assert [a["width"] for a in page.all("rect", **{"class": "filled"})] == [
        *("40.00%", "40.00%", "40.00%"),
        *("25.00%", "100.00%"),
    ]
    assert [a["width"] for a in page.all("rect", **{"class": "gained"})] == ["50.00%"]
    assert [a["width"] for a in page.all("rect", **{"class": "lost"})] == ["50.00%"]


def test_costs_are_added_up():
    text = " ".join(Page(render_report(full())).text)
    assert "verify 3 +7 found 1 failed 1,200 2.5 MB 40 s 700 MB" in text
    assert "all steps 6 +7 found 1 failed 2,400 5 MB 50 s 700 MB" in text


def test_results_are_marked_right_wrong_or_unknown():
    html = render_report(full())
    page = Page(html)
    shown = [(a["title"], a["class"].split()[1:]) for a in page.all("li") if "photo" in a["class"]]
    assert shown[:2] == [("1 · g1 · wrong", ["wrong", "p0"]), ("2 · g2 · right", ["right", "p1"])]
    assert shown[2] == ("3 · x0 · wrong", ["wrong", "blank"])
    assert len(shown) == 10 + 2 + 1
    assert shown[10] == ("1 · g2 · right", ["right", "p1"])
    assert shown[12] == ("1 · g2 · unknown", ["unknown", "p1"])
    # AP@100 of the two rankings: (1/2) / 2 and (1/1) / 2; none where no answer is known.
    assert [t for t in page.text if t.startswith("AP@100")] == ["AP@100 0.250", "AP@100 0.500"]
    # A gallery photo's picture stands in the page once, one that no row shows not at all.
    assert html.count(data_uri(b"another")) == 1
    assert data_uri(b"not shown") not in html


def test_photos_left_out_are_counted_and_listed():
    page = Page(render_report(full()))
    text = " ".join(page.text)
    assert "3 photos could not be decoded" in text
    assert "cut short 2 no image 1" in text
    assert [t for t in page.text if re.fullmatch("u[0-9]", t)] == ["u0", "u1", "u2"]
    none = " ".join(Page(render_report(Report(run="r", undecoded=[]))).text)
    assert "every photo could be decoded" in none


def test_nothing_is_fetched():
    html = render_report(full())
    assert "://" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!data:)", html)
    page = Page(html)
    assert not page.all("script")
    assert not page.all("link")
    assert all(a["src"].startswith("data:") for a in page.all("img"))
    assert any("default-src 'none'" in a.get("content", "") for a in page.all("meta"))


def test_names_cannot_break_the_page():
    evil = "</style><script>alert('1')</script>&"
    page = render_report(
        Report(
            run=evil,
            about=evil,
            measure=evil,
            facts={evil: evil},
            scores=[StepScore(step=evil, scores=scores(0.5))],
            costs=[cost(evil)],
            undecoded=[Undecoded(photo_id=evil, reason=evil)],
            settings={evil: {evil: evil}},
            queries=[
                QueryExample(query_id=evil, photo=PICTURE, why=evil, rankings={evil: [evil]}, landmark=evil)
            ],
            pairs=[VerifiedPair(query_id=evil, gallery_id=evil, picture=PICTURE, n_inliers=1)],
            thumbnails={evil: PICTURE},
        )
    )
    assert "<script" not in page
    assert page.count("</style>") == 1
    assert Page(page).text.count(evil) > 10


def test_what_is_empty_is_left_out():
    html = render_report(Report(run="bare"))
    page = Page(html)
    assert not page.all("section")
    assert page.text == ["bare · lmr", "Landmark search", "bare"]
    # A ranking may be empty, and all steps may have taken no time.
    example = QueryExample(query_id="q", photo=PICTURE, why="w", rankings={"s": []}, relevant=[])
    text = Page(render_report(Report(run="r", queries=[example], costs=[cost("s", seconds=0.0)]))).text
    assert "nothing found" in text
    assert "no right photos" in text


def test_wrong_content_is_refused():
    outside = Report(run="r", thumbnails={"g": "photos/g.jpg"})
    with pytest.raises(LmrError, match=r"not inside the page\ngot: photos/g\.jpg"):
        render_report(outside)
    other = Scores(("other",), np.array([0.5]))
    steps = [StepScore(step="a", scores=scores(0.5)), StepScore(step="b", scores=other)]
    with pytest.raises(LmrError, match="scored on different queries"):
        render_report(Report(run="r", scores=steps))


def test_templates_are_package_data(tmp_path):
    """The page is made where the package is no folder at all, as in a zip on a worker's path."""
    package = Path(lmr.__file__).parent
    with zipfile.ZipFile(tmp_path / "lmr.zip", "w") as archive:
        for path in (
            package / "__init__.py",
            package / "errors.py",
            package / "text.py",
            *package.glob("evaluation/**/*.*"),
        ):
            archive.write(path, Path("lmr") / path.relative_to(package))
    code = (
        f"import sys; sys.path[0] = {str(tmp_path / 'lmr.zip')!r}\n"
        "from lmr.evaluation.report import *\n"
        "import lmr; assert 'lmr.zip' in lmr.__file__\n"
        "print(render_report(Report(run='zipped')).count('zipped'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "2", done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.01234, "0.0123 s"),
        (9.5, "9.5 s"),
        (42.4, "42 s"),
        (59.97, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert report_module._duration(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_999, "1 MB"),
        (4_680_000_000, "4.68 GB"),
        (2 * 10**15, "2,000 TB"),
    ],
)
def test_sizes(n_bytes, text):
    assert report_module._size(n_bytes) == text


class TestPickQueries:
    before = scores(0.1, 0.9, 0.5, 0.5, np.nan, 0.0, 0.2)
    after = scores(0.8, 0.2, 0.5, 0.6, np.nan, 0.0, 0.2)

    def test_gains_the_worst_and_some_at_random(self):
        picked = pick_queries(self.before, self.after, n_each=2)
        assert picked[:4] == [
            ("q0", "largest gain"),
            ("q3", "largest gain"),
            ("q1", "largest loss"),
            ("q5", "lowest score"),
        ]
        assert {query for query, why in picked[4:] if why == "at random"} <= {"q2", "q4", "q6"}
        assert len(picked) == 6
        assert pick_queries(self.before, self.after, n_each=2) == picked

    def test_a_query_is_chosen_once(self):
        picked = pick_queries(self.before, self.after, n_each=7)
        assert sorted(query for query, _ in picked) == [f"q{n}" for n in range(7)]
        assert dict(picked)["q4"] == "at random"  # it has no right answer, so it neither gains nor loses

    def test_the_same_queries_are_needed(self):
        with pytest.raises(LmrError, match="different queries"):
            pick_queries(self.before, scores(0.5))
