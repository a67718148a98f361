"""Photos from a real host with the faults of the web: each address has its outcome, and none is lost."""

import itertools
import socket
import time

import pytest

from lmr.storage import web, web_hosts
from lmr.storage.web import MayPass, NotFetched, WebLimits, fetch, is_web, web_stamp
from lmr.storage.web_hosts import is_public
from tests.support.photo_host import PhotoHost

PHOTO = bytes(range(256)) * 200
HERE = WebLimits(private=True, tries=3, timeout_seconds=0.8, longest_pause_seconds=2.0)


@pytest.fixture(scope="module")
def host():
    with PhotoHost({"photo": PHOTO, "a b": b"spaced"}) as started:
        yield started


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(web, "_PAUSE_SECONDS", 0.05)


OUTCOMES = {
    "photo": PHOTO,
    "fault/as-text": PHOTO,
    "fault/moved": PHOTO,
    "fault/empty": b"",
    "fault/page": b"<html>please log in</html>",
    "fault/busy-once": PHOTO,
    "fault/internal-once": PHOTO,
    "fault/drop-once": PHOTO,
    "fault/cut-once": PHOTO,
    "fault/silent-once": PHOTO,
    "missing": "web: 404 Not Found",
    "fault/gone": "web: 410 Gone",
    "fault/forbidden": "web: 403 Forbidden",
    "fault/odd-status": "web: 599 unknown answer",
    "fault/huge": "too large: 1,000,000,000,000 bytes; at most 100,000 are read of a web address",
    "fault/endless": "too large: more than 100,000 bytes; at most 100,000 are read of a web address",
    "fault/packed": "web: sent packed, which was not asked for",
    "fault/round": "web: more than 5 redirects",
    "fault/to-file": "web: leads to an address of file",
    "fault/to-cloud": "web: 169.254.169.254 is a private address",
    "fault/busy": MayPass("web: 503 Service Unavailable, 3 times"),
    "fault/internal": MayPass("web: 500 Internal Server Error, 3 times"),
    "fault/come-back-late": MayPass("web: 503 Service Unavailable; it asks to come back in 86,400 s"),
    "fault/drop": MayPass("web: the connection was dropped, 3 times"),
    "fault/cut": MayPass("web: cut off before its end, 3 times"),
    "fault/slow": MayPass("web: no answer within 0.8 s, 3 times"),
    "fault/silent": MayPass("web: no answer within 0.8 s, 3 times"),
    "fault/nonsense": MayPass("web: the answer is not HTTP, 3 times"),
}
"""Bytes; text: a fact; `MayPass`: a reason that may pass."""


def test_each_address_has_its_outcome_in_order(host):
    found = list(fetch([f"{host.url}/{name}" for name in OUTCOMES], most_bytes=100_000, limits=HERE))
    assert len(found) == len(OUTCOMES)
    for (name, wanted), got in zip(OUTCOMES.items(), found, strict=True):
        if isinstance(wanted, bytes):
            assert got == wanted, name
        else:
            text = wanted if isinstance(wanted, str) else wanted.what
            assert (name, type(got), got.what) == (
                name,
                NotFetched if isinstance(wanted, str) else MayPass,
                text,
            )
    # What is a fact is asked once, what may pass so often as there are tries.
    assert host.asked["/missing"] == 1
    assert host.asked["/fault/busy"] == 3
    assert host.asked["/fault/come-back-late"] == 1


def test_what_nobody_foresaw_is_that_of_one_photo(host, monkeypatch):
    once = web._Fetcher._once

    async def odd(self, session, address):
        if address.query_string == "odd":
            raise ValueError("an odd header")
        return await once(self, session, address)

    monkeypatch.setattr(web._Fetcher, "_once", odd)
    urls = [f"{host.url}/photo?odd", f"{host.url}/photo"]
    first, second = fetch(urls, most_bytes=100_000, limits=HERE)
    assert (type(first), first.what, first.got) == (
        NotFetched,
        "web: cannot be fetched",
        "ValueError: an odd header",
    )
    assert second == PHOTO


def test_addresses_that_are_none(host):
    wrong = ["http://", "http:///x", "http://[::1", "http://h:99999/", "http://h:0/", "https://\ud800/"]
    found = list(fetch(wrong, most_bytes=100, limits=HERE))
    assert all(type(one) is NotFetched for one in found)
    (closed,) = fetch(["http://127.0.0.1:9/x"], most_bytes=100, limits=HERE)
    assert isinstance(closed, MayPass)
    assert closed.what.startswith("web: not reachable")
    ways = [f"{host.url}/a b", f"{host.url}/a%20b", f"{host.url}/a%20b?x=%2F#part"]
    assert list(fetch(ways, most_bytes=100, limits=HERE)) == [b"spaced"] * 3


def test_a_host_that_asks_for_a_pause_gets_it(host):
    names = ["too-many-once?1", "whole?2", "whole?3"]
    before = len(host.times.get("/fault/whole", []))
    start = time.monotonic()
    limits = WebLimits(private=True, per_host=1)
    found = list(fetch([f"{host.url}/fault/{name}" for name in names], most_bytes=100_000, limits=limits))
    assert found == [PHOTO] * 3
    first, second = host.times["/fault/too-many-once"]
    assert second - first >= 0.95
    # Not only the photo waits: all that is wanted of this host does.
    assert min(host.times["/fault/whole"][before:]) - start >= 0.95


def test_no_more_than_so_many_at_once_of_a_host_and_in_all():
    with PhotoHost({"photo": PHOTO}) as host:
        host.hold_seconds = 0.05
        addresses = [f"{host.url}/photo?{i}" for i in range(100)]
        for limits, most in ((WebLimits(private=True, per_host=3), 3), (WebLimits(private=True), 8)):
            host.most = 0
            assert list(fetch(addresses[:24], most_bytes=100_000, limits=limits)) == [PHOTO] * 24
            assert host.most == most
        # Photos that nobody takes are not piled up: the memory is that of so many photos.
        host.asked.clear()
        few = WebLimits(private=True, connections=4)
        with_rest = fetch(addresses, most_bytes=100_000, limits=few)
        assert len(list(itertools.islice(with_rest, 3))) == 3
        time.sleep(0.3)
        assert host.asked["/photo"] <= 3 + 4
        with_rest.close()  # ends what is on its way


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
        *("::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::127.0.0.1", "2001:db8::1"),
    ],
)
def test_addresses_that_the_internet_cannot_reach_are_private(address):
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    (found,) = fetch([f"http://{host}/"], most_bytes=100)
    assert type(found) is NotFetched
    assert "private address" in found.what


def test_addresses_of_the_internet_are_public():
    assert all(map(is_public, ("93.184.215.14", "2606:4700::1111", "64:ff9b::5db8:d70e", "::ffff:1.1.1.1")))


@pytest.mark.parametrize("written", ["localhost", "127.1", "2130706433", "0x7f000001", "017700000001"])
def test_this_machine_under_other_names(host, written):
    before = sum(host.asked.values())
    (found,) = fetch([f"http://{written}:{host.port}/photo"], most_bytes=100_000, limits=WebLimits(tries=1))
    assert isinstance(found, NotFetched)
    assert sum(host.asked.values()) == before


def answering(monkeypatch, *answers):
    """Let names resolve to these addresses, one answer after the other; return what was asked."""
    asked, real = [], socket.getaddrinfo

    def getaddrinfo(name, port, *more, **options):
        if name not in ("photos.example", "elsewhere.example"):
            return real(name, port, *more, **options)
        asked.append(name)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_of_a_private_address_is_refused(host, monkeypatch):
    before = sum(host.asked.values())
    asked = answering(monkeypatch, ["127.0.0.1"])
    (found,) = fetch([f"http://photos.example:{host.port}/photo"], most_bytes=100_000)
    assert found.what == "web: photos.example has a private address"
    assert asked == ["photos.example"]
    assert sum(host.asked.values()) == before


def test_the_connection_goes_to_the_address_that_was_checked(host, monkeypatch):
    # The name means a public address when it is checked, and this machine if it were asked once more.
    monkeypatch.setattr(web_hosts, "is_public", lambda address: address == "127.0.0.1")
    asked = answering(monkeypatch, ["127.0.0.1", "10.9.9.9"], ["10.9.9.9"])
    (found,) = fetch([f"http://photos.example:{host.port}/photo"], most_bytes=100_000)
    assert found == PHOTO
    assert asked == ["photos.example"]


def test_a_redirect_to_a_name_of_a_private_address_is_refused(host, monkeypatch):
    answering(monkeypatch, ["10.0.0.7"])
    monkeypatch.setattr(web_hosts, "is_public", lambda address: address == "127.0.0.1")
    before = host.asked["/fault/whole"]
    (found,) = fetch([f"{host.url}/fault/to-name"], most_bytes=100_000)
    assert found.what == "web: elsewhere.example has a private address"
    assert host.asked["/fault/whole"] == before


def test_what_is_a_web_address():
    assert is_web("HTTPS://x/y")
    assert is_web("http://x")
    assert not any(map(is_web, ("s3://x", "/http://x", "http:/x", "")))
    assert web_stamp("http://x/a") != web_stamp("http://x/b")
