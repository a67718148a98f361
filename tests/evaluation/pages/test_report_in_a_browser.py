"""The report in a real browser: what is seen and pressed; hostile names; a hundred thousand queries."""

import base64
import io
import json
import random
import time

import pytest
from PIL import Image

from lmr.evaluation.pages.report import QueryFiles, Report, render_report, report_script
from lmr.evaluation.pages.report_data import FILE_BYTES, ListedPhoto, PhotoPicture, QueryEntry, ReportData
from tests.support.browser import browser, devtools, needs_browser

STAGES = ("1 local search", "2 spatial verification", "5 regional diffusion")
HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">.jpg",
    "</script><script>document.title='owned'</script>.jpg",
    "'\"><b onmouseover=alert(1)>.jpg",
    '=HYPERLINK("http://evil","x").jpg',
    "a\x1b[31m\x07\u202egpj.exe.jpg",
    "line\nbreak\u2028.jpg",
    "__proto__",
    "Zürich 東京.jpg",
]


def picture(colour):
    out = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def write(folder, queries, *, photos, pictures=(), about="a line"):
    """Write a report of some entries; return its URL and the files beside it."""
    files = folder / "data-0"
    files.mkdir(parents=True)
    data = ReportData(lambda name, content: (files / name).write_bytes(content), photos)
    for row, one in dict(pictures).items():
        data.add_large(f"g{row}", one.small)
    data.close_large()
    for entry in queries:
        data.add(entry, dict(pictures))
    data.close()
    (files / "report.js").write_bytes(report_script())
    page = Report(
        run="r",
        about=about,
        stages=STAGES,
        verified=True,
        files=QueryFiles(
            folder="data-0",
            index_files=data.files["index"],
            queries=data.queries,
            pictured=data.pictured,
            unreadable=data.unreadable,
            without_confident=data.without_confident,
        ),
    )
    (folder / "index.html").write_text(render_report(page), encoding="utf-8")
    return f"file://{folder}/index.html", files


def small(folder, names=("a.jpg", "b.jpg", "c.jpg", "d.jpg")):
    """Write a report of a query per name, each with as many photos of the same names."""
    pictures = {
        row: PhotoPicture(small=picture((40 * row % 255, 90, 120)), large=0) for row in range(len(names))
    }
    queries = [
        QueryEntry(
            query_id=f"q{i}",
            path=name,
            found=30,
            confident=0 if i == 1 else 2,
            unreadable="truncated JPEG" if i == 2 else "",
            listed=[
                ListedPhoto(
                    photo=row,
                    ranks=(row + 1, 0, row + 1),
                    inliers=50 - row,
                    confident=row < 2 and i != 1,
                    lines=(100, 100, 200, 200, 900, 900, 800, 800) if row < 2 and i != 1 else (),
                )
                for row in range(len(names))
            ],
            heads=[[0, 1], [1, 0], [1, 2]],
            picture=PhotoPicture(small=picture((200, 10 * i, 0))),
        )
        for i, name in enumerate(names)
    ]
    return write(folder, queries, photos=lambda row: (f"g{row}", names[row]), pictures=pictures)[0]


def opened(window, url):
    window.open(url)
    window.wait("document.body.dataset.ready === 'yes'")


@pytest.mark.slow
@pytest.mark.system
@needs_browser
def test_names_are_text_everywhere(tmp_path):
    url = small(tmp_path / "report", HOSTILE)
    with browser(tmp_path / "profile") as window:
        opened(window, url)
        window.wait("document.querySelectorAll('.strip img').length > 10")
        shown = window.run("return [...document.querySelectorAll('.whole .name')].map(e => e.textContent)")
        assert shown[0] == HOSTILE[0]
        assert shown[1] == HOSTILE[1]
        assert shown[4] == r"a\x1b[31m\x07\u202egpj.exe.jpg"
        assert shown[7] == HOSTILE[7]
        for i in range(len(HOSTILE)):
            window.run(f"location.hash = '#q={i}'")
            window.wait(f"document.querySelector('#query h3')?.textContent === {json.dumps(shown[i])}")
            window.run("document.querySelector('.grid .photo').click()")
            window.run("document.getElementById('large').close()")
        names = window.run("return [...document.querySelectorAll('.grid .name')].map(e => e.textContent)")
        assert names == shown
        assert window.run("return document.title") == "r · lmr"
        assert window.run("return document.querySelectorAll('script[src]').length") == 1
        assert window.run("return document.querySelectorAll('main img[src=x], b[onmouseover]').length") == 0
        assert window.messages() == []


@pytest.mark.slow
@pytest.mark.system
@needs_browser
def test_it_is_looked_through_by_keyboard(tmp_path):
    url = small(tmp_path / "report")
    with browser(tmp_path / "profile") as window:
        opened(window, url)
        says = window.run("return [...document.querySelectorAll('.says')].map(e => e.textContent)")
        assert says == [
            "30 matches, 2 of them confident",
            "30 matches, none of them confident",
            "no list: truncated JPEG",
            "30 matches, 2 of them confident",
        ]
        window.keys("/")
        assert window.run("return document.activeElement.id") == "search"
        window.keys("b")
        window.wait("document.body.dataset.shown === '1'")
        assert window.run("return document.querySelector('.whole .name').textContent") == "b.jpg"
        window.run(
            "const s = document.getElementById('search'); s.value = ''; s.dispatchEvent(new Event('input'))"
        )
        window.wait("document.body.dataset.shown === '4'")
        for label, names in (
            ("without a confident match", ["b.jpg"]),
            ("without a list", ["c.jpg"]),
            ("with confident matches", ["a.jpg", "c.jpg", "d.jpg"]),
            ("all queries", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]),
        ):
            pick(window, "filter", label)
            assert listed(window) == names
        pick(window, "sort", "fewest confident matches")
        assert listed(window) == ["b.jpg", "a.jpg", "c.jpg", "d.jpg"]
        window.run("document.activeElement.blur(); location.hash = '#q=1'")
        window.wait("document.querySelector('#query h3')?.textContent === 'b.jpg'")
        window.keys("\ue014")  # to the right: the next in the order of the list
        window.wait("document.querySelector('#query h3')?.textContent === 'a.jpg'")
        window.wait("document.querySelectorAll('.pair line').length === 2")
        assert window.run("return document.querySelectorAll('.stage').length") == 3
        assert "1 new among the first 2, 1 gone" in window.run(
            "return document.querySelectorAll('.stage h4')[2].textContent"
        )
        assert window.run("return document.querySelector('.grid .ranks').textContent") == "ranks 1 → – → 1"
        window.run("document.querySelectorAll('.grid .photo')[0].click()")
        assert window.run("return document.getElementById('large').open")
        window.keys("\ue014")
        window.wait("document.querySelector('dialog .name')?.textContent === 'b.jpg'")
        window.keys("\ue00c")  # escape closes the picture, and once more the query
        window.wait("!document.getElementById('large').open")
        window.keys("\ue00c")
        window.wait("document.getElementById('query').hidden")


def listed(window):
    return window.run("return [...document.querySelectorAll('.whole .name')].map(e => e.textContent)")


def pick(window, which, label):
    window.run(
        "const s = document.getElementById(arguments[0]);"
        "s.value = [...s.options].find(o => o.textContent === arguments[1]).value;"
        "s.dispatchEvent(new Event('change'))",
        which,
        label,
    )


CONTRAST = """
const lum = c => { const v = c.map(x => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const rgb = s => (s.match(/[\\d.]+/g) || []).map(Number);
const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
  if (c.length === 3 || c[3] > .6) return c.slice(0, 3); } return [255, 255, 255]; };
const low = [];
for (const e of document.querySelectorAll('body *')) {
  const says = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!says || !e.checkVisibility() || e.closest('svg, .skip, script, style, noscript')) continue;
  if (e.disabled || e.getAttribute('aria-disabled')) continue;
  const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(behind(e))].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  if (ratio < 4.5) low.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
}
return low;
"""


@pytest.mark.slow
@pytest.mark.system
@needs_browser
@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 1280), (False, 390), (True, 390)])
def test_text_is_readable_and_nothing_is_cut_off(tmp_path, dark, width):
    url = small(tmp_path / "report")
    with browser(tmp_path / "profile", width=width, dark=dark) as window:
        opened(window, url)
        assert window.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
        for place in ("", "#q=0"):
            window.run("location.hash = arguments[0]", place)
            if place:
                window.wait("document.querySelector('.stages')")
                window.run("document.querySelector('.stages').open = true")
            assert window.run(CONTRAST) == []
            assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        devtools(window, "Emulation.setEmulatedMedia", media="print")
        assert window.run(CONTRAST) == []


@pytest.mark.slow
@pytest.mark.system
@needs_browser
def test_files_that_were_left_behind_are_told(tmp_path):
    url = small(tmp_path / "report")
    (tmp_path / "report" / "data-0" / "queries-00000.js").unlink()
    with browser(tmp_path / "profile") as window:
        opened(window, url)
        assert "copy the whole folder of the report" in window.run("return document.body.textContent")


ANSWER = """
const [word, done] = arguments, search = document.getElementById('search'), start = performance.now();
new MutationObserver((_, one) => {
  one.disconnect();
  done([performance.now() - start, document.body.dataset.shown]);
}).observe(document.body, {attributes: true, attributeFilter: ['data-shown']});
search.value = word;
search.dispatchEvent(new Event('input'));
"""


@pytest.mark.slow
@pytest.mark.system
@needs_browser
def test_a_hundred_thousand_queries(tmp_path):
    count, made = 100_000, random.Random(0)

    def queries():
        for i in range(count):
            yield QueryEntry(
                query_id=f"{made.getrandbits(64):016x}",
                path=f"album {i % 97}/IMG_{i:06d}.jpg",
                found=100,
                confident=i % 7,
                scores=(made.random(), made.random(), made.random()),
                n_right=i % 12,
                listed=[
                    ListedPhoto(
                        photo=(i * 31 + n) % 1_000_000,
                        ranks=(n + 1, n + 1, n + 1),
                        inliers=30,
                        confident=n < i % 7,
                    )
                    for n in range(10)
                ],
            )

    begun = time.perf_counter()
    url, files = write(
        tmp_path / "report", queries(), photos=lambda row: (f"g{row}", f"places/{row % 1000}/{row:07d}.jpg")
    )
    megabytes = sum(file.stat().st_size for file in files.iterdir()) / 1e6
    print(f"written in {time.perf_counter() - begun:.1f} s, {megabytes:.0f} MB")
    assert max(f.stat().st_size for f in files.glob("queries-*")) < 1.2 * FILE_BYTES
    with browser(tmp_path / "profile") as window:
        window.open("about:blank")
        begun = time.perf_counter()
        window.open(url)
        window.wait("document.querySelectorAll('.plain li').length > 0", 30)
        first = time.perf_counter() - begun
        window.wait("document.body.dataset.ready === 'yes'", 30)
        whole = time.perf_counter() - begun
        answers = [
            window.run_async(
                ANSWER,
                word,
            )
            for word in ("img_0999", "album 13/", "no such name", "")
        ]
        assert [int(found) for _, found in answers] == [
            100,
            sum(i % 97 == 13 for i in range(count)),
            0,
            count,
        ]
        slowest = max(ms for ms, _ in answers) / 1000
        pick(window, "filter", "without a confident match")
        window.wait(f"document.body.dataset.shown === '{sum(i % 7 == 0 for i in range(count))}'")
        window.run(
            "[...document.querySelectorAll('.pager button')].find(b => b.textContent === 'Last').click()"
        )
        window.wait("document.querySelector('.pager span').textContent === 'page 715 of 715'")
        window.wait("document.querySelectorAll('.plain li').length > 0")
        assert listed(window)[-1] == f"album {99_995 % 97}/IMG_099995.jpg"
        print(
            f"first list after {first:.2f} s, whole index after {whole:.2f} s, slowest answer {slowest:.3f} s"
        )
        # The goals are 2 s and 0.3 s on a quiet machine; a busy one takes up to three times as long.
        assert first < 6
        assert slowest < 1
