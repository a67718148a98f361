"""`lmr serve`: answers, refusals, and nothing of the machine in either."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from lmr.api.ask import PhotoSearch
from lmr.api.reopen import reopen
from lmr.api.server.limits import Limits, RateLimit
from lmr.api.server.openapi import described
from lmr.api.server.serve import prepare_server
from lmr.errors import LmrError, SettingsError
from tests.support.asking import ask, bomb, serving
from tests.support.world import lmr as command

TOKEN = "a-token-of-24-characters"
FAST = Limits(per_minute=100_000, burst=10_000)


@pytest.fixture(scope="module")
def grouped(finished, tmp_path_factory):
    root = tmp_path_factory.mktemp("served") / "run"
    shutil.copytree(finished.root, root)
    command("group", str(root), "--workers", "0")
    return root


@pytest.fixture(scope="module")
def port(grouped):
    with serving(grouped, limits=FAST) as (found, _):
        yield found


@pytest.fixture(scope="module")
def photo(world):
    return next(path for path in sorted((world / "queries").iterdir()) if path.name != "cut.jpg")


def test_an_upload_is_answered_as_python_answers(grouped, port, photo):
    answer = ask(port, "POST", "/api/search?most=5", photo.read_bytes())
    assert answer.status == 200
    right = PhotoSearch(reopen(grouped)).ask(photo, most=5)
    found = answer.json
    assert (found["width"], found["height"], found["confident"]) == (
        right.width,
        right.height,
        right.confident,
    )
    for got, want in zip(found["matches"], right.matches, strict=True):
        assert (got["name"], got["inliers"], got["confident"]) == (want.path, want.inliers, want.confident)
        assert got["similarity"] == pytest.approx(want.similarity, abs=1e-4)
        assert bool(got["lines"]) == want.confident
        assert all(0 <= x <= 1 for line in got["lines"] for x in line)


def test_a_photo_found_is_searched_for_again(port, photo):
    best = ask(port, "POST", "/api/search", photo.read_bytes()).json["matches"][0]
    again = ask(port, "POST", f"/api/photos/{best['photo']}/search?most=3").json
    assert again["matches"][0]["photo"] == best["photo"]
    assert again["matches"][0]["similarity"] == pytest.approx(1, abs=2e-3)


def test_pictures_are_small_jpegs(port):
    for size in ("small", "large"):
        answer = ask(port, "GET", f"/api/photos/3?size={size}")
        assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
        assert answer.body.startswith(b"\xff\xd8")
    assert ask(port, "GET", "/api/photos/3?size=huge").status == 400
    assert ask(port, "GET", "/api/photos/999999").status == 404


def test_places_are_browsed(port, grouped):
    first = ask(port, "GET", "/api/groups").json
    lines = (grouped / "groups.csv").read_text().splitlines()[1:]
    assert sum(group["size"] for group in first["groups"]) == len(lines)
    group = ask(port, "GET", "/api/groups/1").json
    names = [line.split(",")[3] for line in lines if line.startswith("1,")]
    assert [one["name"] for one in group["photos"]] == names
    assert ask(port, "GET", "/api/groups/0").status == 404
    assert ask(port, "GET", "/api/groups?page=-1").status == 400


def bad_uploads(photo):
    whole = photo.read_bytes()
    return [
        (b"", "empty file"),
        (b"<svg onload=alert(1)>", "not an image"),
        (b"\x00" * 100_000, "not an image"),
        (whole[: len(whole) // 3], "truncated JPEG"),
        (bomb(), "too large"),
        (b"%PDF-1.7 " + os.urandom(5000), "not an image"),
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_bad_upload_is_told_why(port, photo, number):
    content, reason = bad_uploads(photo)[number]
    answer = ask(port, "POST", "/api/search", content)
    assert answer.status == 422
    assert reason in answer.json["error"]


def test_an_upload_has_a_bound(grouped, photo):
    with serving(grouped, limits=Limits(upload_bytes=1000)) as (port, _):
        assert ask(port, "POST", "/api/search", photo.read_bytes()).status == 413
        # Without a length, it is cut when it is too long.
        parts = (b"x" * 500 for _ in range(100))
        assert ask(port, "POST", "/api/search", parts, {"transfer-encoding": "chunked"}).status == 413
        claimed = ask(port, "POST", "/api/search", b"", {"content-length": "99999999999"})
        assert claimed.status == 413


def test_an_upload_has_a_time(grouped):
    with (
        serving(grouped, limits=Limits(upload_seconds=0.3)) as (port, _),
        socket.create_connection(("127.0.0.1", port), timeout=30) as slow,
    ):
        slow.sendall(b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 408 " in slow.recv(1000).split(b"\r\n")[0]


def test_a_client_that_asks_too_often_waits(grouped):
    with serving(grouped, limits=Limits(per_minute=1, burst=2)) as (port, _):
        found = [ask(port, "POST", "/api/search", b"").status for _ in range(3)]
        assert found == [422, 422, 429]
        assert int(ask(port, "POST", "/api/search", b"").headers["retry-after"]) > 0


def test_only_a_few_wait_for_their_turn(grouped, photo):
    with serving(grouped, limits=Limits(waiting=0)) as (port, _):
        found = []
        content = photo.read_bytes()
        threads = [
            threading.Thread(target=lambda: found.append(ask(port, "POST", "/api/search", content).status))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(found) == {200, 503}
        assert ask(port, "POST", "/api/search", content).status == 200  # and the turn is free again


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80@localhost"}, 200),  # a user's name in front of ours is no other host
        ({"Host": ""}, 421),
        ({"Host": "[::"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
    ],
)
def test_other_sites_are_refused(port, headers, status):
    assert ask(port, "GET", "/api/about", headers=headers).status == status


def test_the_page_of_the_server_itself_may_ask(port, photo):
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert ask(port, "POST", "/api/search", photo.read_bytes(), own).status == 200


def test_a_token_is_needed_where_there_is_one(grouped):
    with serving(grouped, token=TOKEN) as (port, url):
        assert url.endswith(f"/?token={TOKEN}")
        for path in (
            "/",
            "/api/about",
            "/docs",
            "/openapi.json",
            "/?token=wrong",
            f"/api/about?token={TOKEN}",
        ):
            assert ask(port, "GET", path).status == 401
        assert ask(port, "POST", "/api/search", b"x" * 1000).status == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert ask(port, "GET", "/api/about", headers=bearer).status == 200
        assert ask(port, "GET", "/api/about", headers={"Authorization": f"Bearer {TOKEN}x"}).status == 401
        assert ask(port, "GET", "/api/about", headers={"Authorization": "Bearer \xe9"}).status == 401
        entered = ask(port, "GET", f"/?token={TOKEN}")
        assert (entered.status, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        assert ask(port, "GET", "/", headers={"Cookie": cookie.split(";")[0]}).status == 200
        assert ask(port, "GET", "/", headers={"Cookie": "lmr_token=wrong"}).status == 401


def test_ctrl_c_ends_it_without_a_word_of_going_on(grouped, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lmr", "serve", str(grouped), "--port", "0"], stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + 200
        while "stop it with Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert log.read_text().splitlines()[-1] == "stopped; the page is served no more"


def test_elsewhere_than_on_loopback_there_is_a_token(grouped):
    served = prepare_server(str(grouped), host="0.0.0.0", port=0, warm=False)
    served.listener.close()
    assert re.search(r"\?token=[\w-]{32}$", served.url)
    with pytest.raises(SettingsError, match="easily guessed"):
        prepare_server(str(grouped), port=0, token="short", warm=False)


def test_a_port_in_use_is_told(grouped, port):
    with pytest.raises(LmrError, match=f"cannot listen on 127.0.0.1, port {port}") as told:
        prepare_server(str(grouped), port=port, warm=False)
    assert "--port" in told.value.fix


def test_nothing_of_this_machine_is_told(grouped, port, world, photo):
    """In no answer stands where the run or its photos lie, damaged runs included."""
    requests = [
        ("GET", "/", None),
        ("GET", "/app.js", None),
        ("GET", "/docs", None),
        ("GET", "/openapi.json", None),
        ("GET", "/api/about", None),
        ("GET", "/api/groups", None),
        ("POST", "/api/search", photo.read_bytes()),
        ("POST", "/api/search", b"no photo"),
        ("GET", "/../../../../etc/passwd", None),
        ("GET", "/api/photos/..%2f..%2fetc%2fpasswd", None),
        ("GET", "/app.js/../../serve.py", None),
        ("DELETE", "/api/about", None),
    ]
    for method, path, body in requests:
        answer = ask(port, method, path, body)
        assert answer.status in (200, 404, 405, 422), path
        for secret in (str(world), str(grouped.parent), "root:", os.path.expanduser("~") + "/", "Traceback"):
            assert secret.encode() not in answer.body
            assert secret not in json.dumps(answer.headers)


def test_a_run_that_loses_its_files_says_no_more_than_that(grouped, tmp_path, photo, monkeypatch, capfd):
    root = tmp_path / "run"
    shutil.copytree(grouped, root)
    monkeypatch.setenv("LMR_CACHE", str(tmp_path / "cache"))
    with serving(root) as (port, _):
        for shard in (root / "local" / "gallery").rglob("*.parquet"):
            shard.unlink()
        answer = ask(port, "POST", "/api/search", photo.read_bytes())
    assert answer.status == 500
    assert str(root) not in answer.body.decode()
    assert "is missing" in capfd.readouterr().err


def test_every_answer_forbids_what_is_of_other_sites(port):
    for path in ("/", "/api/about", "/nothing", "/docs"):
        headers = ask(port, "GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in {name.lower() for name in headers}


def test_what_is_described_is_there(port):
    about = ask(port, "GET", "/openapi.json").json
    assert about == described(FAST)
    page = ask(port, "GET", "/docs").body.decode()
    for path, methods in about["paths"].items():
        assert path in page
        for method in methods:
            asked = ask(port, method.upper(), path.replace("{row}", "0").replace("{number}", "1"), b"")
            assert asked.status not in (404, 405)
            assert str(asked.status) in methods[method]["responses"]
    for ref in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(about)):
        assert ref in about["components"]["schemas"]
    answer = about["components"]["schemas"]["About"]["required"]
    assert set(ask(port, "GET", "/api/about").json) == set(answer)


def test_a_connection_that_breaks_off_harms_nobody(port, photo):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nabc")
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
    assert ask(port, "POST", "/api/search", photo.read_bytes()).status == 200


def test_long_headers_are_refused(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/", headers={f"X-Long-{i}": "x" * 60_000 for i in range(8)})
    assert connection.getresponse().status in (400, 431)
    connection.close()


def test_a_share_fills_up_again():
    rate = RateLimit(per_minute=60, burst=2, clients=2)
    assert [rate.wait_seconds("a", now) for now in (0.0, 0.0)] == [0, 0]
    assert rate.wait_seconds("a", 0.0) == pytest.approx(1)
    assert rate.wait_seconds("b", 0.0) == 0
    assert rate.wait_seconds("a", 1.01) == 0
    assert rate.wait_seconds("a", 1.01) > 0.9
    # However many clients there are, few are remembered.
    for name in "cdefgh":
        rate.wait_seconds(name, 2.0)
    assert len(rate._left) == 2


def test_without_the_extra_it_is_named(grouped, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(LmrError, match="the server is not installed") as told:
        prepare_server(str(grouped), port=0)
    assert told.value.fix == 'pip install "lmr[serve]"'


def test_a_server_ends_when_it_is_told(grouped):
    started = time.monotonic()
    with serving(grouped):
        pass
    assert time.monotonic() - started < 60
