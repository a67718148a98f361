"""The application in a real browser: a photo is chosen, looked at, searched again; places are browsed."""

import shutil

import pytest

from lmr.api.server.limits import Limits
from tests.support.asking import serving
from tests.support.browser import browser, devtools, needs_browser
from tests.support.world import lmr as command

pytestmark = [pytest.mark.system, needs_browser]

HOSTILE = "<img src=x onerror=document.title='owned'>.jpg"
TOKEN = "a-token-of-24-characters"


@pytest.fixture(scope="module")
def grouped(finished, tmp_path_factory):
    root = tmp_path_factory.mktemp("served") / "run"
    shutil.copytree(finished.root, root)
    command("group", str(root), "--workers", "0")
    return root


def choose(window, path):
    """Give the page a file, as the browser's own dialog does."""
    document = devtools(window, "DOM.getDocument")["root"]["nodeId"]
    node = devtools(window, "DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    devtools(window, "DOM.setFileInputFiles", files=[str(path)], nodeId=node)


def text(window, name):
    return window.run("return document.getElementById(arguments[0]).textContent", name)


@pytest.mark.slow
def test_a_photo_is_found_looked_at_and_searched_again(grouped, world, tmp_path):
    photo = next(path for path in sorted((world / "queries").iterdir()) if path.name == "cut.jpg")
    good = tmp_path / HOSTILE
    shutil.copy(next(path for path in sorted((world / "queries").iterdir()) if path != photo), good)
    limits = Limits(per_minute=10_000, burst=1000)
    with serving(grouped, token=TOKEN, limits=limits) as (port, url), browser(tmp_path / "profile") as window:
        window.open(url)
        window.wait("document.getElementById('about').textContent.includes('photos')")
        assert window.run("return location.search") == ""  # the token does not stay in the address

        choose(window, good)
        window.wait("document.querySelectorAll('#matches li').length > 5")
        assert "confident" in text(window, "sentence")
        assert HOSTILE in text(window, "details")
        assert window.run("return document.querySelectorAll('#matches li.sure').length") >= 1
        window.wait("document.querySelector('#matches img').naturalWidth > 50")

        window.run("document.querySelector('#matches .link').click()")
        drawn = int(window.wait("document.getElementById('lines').dataset.lines"))
        assert drawn >= 10
        painted = (
            "const c = document.getElementById('lines'); "
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
            "return d.some((v, i) => i % 4 == 0 && v > 200)"
        )
        assert window.run(painted)
        window.run("document.getElementById('again').click()")
        window.wait(
            "document.querySelectorAll('#matches li').length > 5 && !document.querySelector('dialog').open"
        )
        name = window.run("return document.querySelector('#matches li p').textContent").split(" ", 1)[1]
        assert text(window, "details").startswith(name)  # a photo of the gallery finds itself first

        window.run("document.querySelectorAll('#matches .picture')[1].click()")
        window.wait("document.getElementById('status').textContent == 'Searching…'")
        window.wait("document.querySelectorAll('#matches li').length > 5")

        choose(window, photo)
        window.wait("document.getElementById('status').textContent.includes('truncated JPEG')")
        assert window.run("return document.getElementById('subject').hidden")

        window.run("document.getElementById('tab-places').click()")
        places = window.wait("document.querySelectorAll('.place').length")
        assert places >= 4
        window.run("document.querySelector('.place .picture').click()")
        window.wait("document.querySelectorAll('#matches li').length > 5")

        window.open(f"http://127.0.0.1:{port}/docs")
        assert "/api/search" in window.run("return document.body.textContent")
        assert window.run("return document.title") != "owned"
        # What the browser complains of is the upload that was refused, and nothing else.
        complaints = window.messages()
        assert all("422" in one for one in complaints), complaints


@pytest.mark.slow
def test_a_phone_shows_it_whole(grouped, world, tmp_path):
    photo = next(path for path in sorted((world / "queries").iterdir()) if path.name != "cut.jpg")
    with (
        serving(grouped) as (_, url),
        browser(tmp_path / "profile", width=390, height=844, dark=True) as window,
    ):
        window.open(url)
        window.wait("document.getElementById('about').textContent.includes('photos')")
        choose(window, photo)
        window.wait("document.querySelectorAll('#matches li').length > 5")
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not window.run(f"return {wide}")
        assert window.run("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 25)"
