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
from lmr.evaluation.pages import report as report_module
from lmr.evaluation.pages.report import (
    QueryFiles,
    Report,
    Setting,
    StepCost,
    StepScore,
    Undecoded,
    render_report,
)
from lmr.evaluation.protocols.scorers import Scores

VOID = {"meta", "img", "link", "br", "input"}


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
        stages=("1 local search", "2 spatial verification", "4 query expansion"),
        verified=True,
        files=QueryFiles(
            folder="data-0", index_files=1, queries=40, pictured=38, unreadable=2, without_confident=8
        ),
        scores=[
            StepScore(step="1 local search", scores=scores(0.5, 0.1, np.nan, 0.6)),
            StepScore(step="2 spatial verification", scores=scores(0.9, 0.0, np.nan, 0.6)),
            StepScore(step="4 query expansion", scores=scores(0.6, 0.0, np.nan, 0.6)),
        ],
        confident_counts=[0, 0, 1, 3, 5, 20, 21, 400],
        costs=[cost("search", seconds=10.0), cost("verify", seconds=40.0, shards_failed=1)],
        undecoded=[
            Undecoded(photo_id=f"u{n}.jpg", reason="cut short" if n < 2 else "no image", role="gallery")
            for n in range(3)
        ],
        settings={"verify": {"min_inliers": Setting(value="40", preset="10"), "seed": Setting(value="0")}},
        facts={"Command": "lmr run retrieval", "Preset": "vlad"},
    )


def test_the_whole_page():
    page = Page(render_report(full()))
    assert page.text[page.text.index("Landmark search") + 1] == "dev"
    links = [a["href"].removeprefix("#") for a in page.all("a") if a.get("class") != "skip"]
    sections = [a["id"] for a in page.all("section")]
    # Matches first, then scores, then cost.
    assert links == sections == ["matches", "scores", "cost", "undecoded", "settings", "made"]
    text = " ".join(page.text)
    assert "queries with a confident match 30 of 40" in text
    assert "queries without a list 2" in text
    assert "lmr run retrieval" in text
    assert "have pictures" not in text  # all that can be read have


def test_settings_that_differ_from_the_preset_are_marked():
    page = Page(render_report(full()))
    text = " ".join(page.text)
    assert "1 setting differs from the preset and is marked." in text
    assert "min_inliers 40 preset: 10 seed 0" in text
    assert len(page.all("div", **{"class": "changed"})) == 1


def test_scores_are_compared_with_the_stage_before():
    text = " ".join(Page(render_report(full())).text)
    assert "over 3 queries" in text
    assert "1 local search 0.400 – – –" in text
    assert "2 spatial verification 0.500 +0.100 1 1" in text
    assert "4 query expansion 0.400 \N{MINUS SIGN}0.100 0 1" in text
    assert "mAP@100 0.400 ±0.000 since 1 local search" in text


def test_bars_are_as_long_as_their_figures():
    page = Page(render_report(full()))
    widths = [a["width"] for a in page.all("rect", **{"class": "filled"})]
    assert widths[:5] == ["100.00%", "50.00%", "100.00%", "50.00%", "100.00%"]  # confident matches: 2 1 2 1 2
    assert widths[5:8] == ["40.00%", "40.00%", "40.00%"]
    assert widths[8:13] == ["50.00%", "0.00%", "0.00%", "100.00%", "0.00%"]  # scores: 0.0 | 0.6 0.6
    assert widths[13:] == ["25.00%", "100.00%"]
    assert [a["width"] for a in page.all("rect", **{"class": "gained"})] == ["50.00%"]
    assert [a["width"] for a in page.all("rect", **{"class": "lost"})] == ["50.00%"]


def test_costs_are_added_up():
    text = " ".join(Page(render_report(full())).text)
    assert "verify 3 1 missing 1,200 2.5 MB 40 s 700 MB" in text
    assert "all steps 6 1 missing 2,400 5 MB 50 s 700 MB" in text


def test_photos_left_out_are_counted_and_listed():
    text = " ".join(Page(render_report(full())).text)
    assert "3 photos could not be decoded" in text
    assert "cut short 2 no image 1" in text
    assert re.findall(r"u\d\.jpg", text) == ["u0.jpg", "u1.jpg", "u2.jpg"]
    none = " ".join(Page(render_report(Report(run="r", undecoded=[]))).text)
    assert "every photo could be decoded" in none


def test_nothing_is_fetched_from_the_web():
    html = render_report(full())
    assert "://" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!data:)", html)
    page = Page(html)
    assert [a["src"] for a in page.all("script") if "src" in a] == ["data-0/report.js"]
    assert not page.all("link")
    (policy,) = [a["content"] for a in page.all("meta") if "Security" in a.get("http-equiv", "")]
    assert "default-src 'none'; script-src 'self' file:; img-src data:;" in policy
    assert b"://" not in report_module.report_script().replace(b"http://www.w3.org/2000/svg", b"")
    for dangerous in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval("):
        assert dangerous not in report_module.report_script()


def test_names_cannot_break_the_page():
    evil = "</style></script><script>alert('1')</script>&"
    page = render_report(
        Report(
            run=evil,
            about=evil,
            state=evil,
            measure=evil,
            stages=[evil],
            files=QueryFiles(folder="data-0", index_files=1, queries=1, pictured=1),
            scores=[StepScore(step=evil, scores=scores(0.5))],
            costs=[cost(evil)],
            undecoded=[Undecoded(photo_id=evil, reason=evil)],
            settings={evil: {evil: Setting(value=evil, preset=evil)}},
            facts={evil: evil},
        )
    )
    assert page.count("<script") == 2
    assert page.count("</style>") == 1
    assert Page(page).text.count(evil) > 10


def test_what_is_empty_is_left_out():
    page = Page(render_report(Report(run="bare")))
    assert not page.all("section")
    assert page.text == ["bare · lmr", "Skip to the matches", "Landmark search", "bare"]
    text = " ".join(Page(render_report(Report(run="r", costs=[cost("s", seconds=0.0)]))).text)
    assert "not known" not in text


def test_wrong_content_is_refused():
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
        "from lmr.evaluation.pages.report import *\n"
        "import lmr; assert 'lmr.zip' in lmr.__file__\n"
        "assert report_script()\n"
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
