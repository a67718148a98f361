"""What can be seen of the images and of compose.yaml without building anything."""

import importlib.util
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from lmr.shipped import files, sources
from tests.support.command_tree import command_at

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
CERTIFICATE = {"scheduler": "scheduler", "worker": "worker", "bucket": None, "s3": None}


@pytest.fixture(scope="module")
def health():
    spec = importlib.util.spec_from_file_location("health", DOCKER / "health.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def test_only_workers_pages_on_loopback_and_the_dashboard_are_asked(health):
    table = """  sl  local_address rem_address   st tx_queue
   0: 0100007F:9C41 00000000:0000 0A 00000000
   1: 0200A8C0:2253 00000000:0000 0A 00000000
   2: 00000000:2252 00000000:0000 0A 00000000
   3: 0100007F:9C42 0100007F:1234 01 00000000
"""
    assert health.pages(table) == ["http://127.0.0.1:40001/health", "http://192.168.0.2:8787/health"]


@pytest.mark.parametrize(
    ("status", "text", "is_healthy"), [(200, b"ok", True), (200, b"no", False), (500, b"ok", False)]
)
def test_health_is_what_the_page_says(health, status, text, is_healthy):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert health.healthy(f"http://127.0.0.1:{server.server_port}/health") == is_healthy
        thread.join()


def test_a_page_that_nobody_serves_is_not_healthy(health):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not health.healthy(f"http://127.0.0.1:{free.getsockname()[1]}/health")


def test_compose_publishes_on_loopback_only(services):
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_gives_a_container_its_own_certificate_and_no_other(services):
    for name, service in services.items():
        keys = [Path(v.split(":")[0]).name for v in service.get("volumes", []) if ".key:" in v]
        role = CERTIFICATE[name]
        assert keys == ([f"{role}.key"] if role else [])


@pytest.mark.parametrize("name", ["scheduler", "worker"])
def test_compose_starts_what_the_command_line_understands(services, name):
    plain = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", part) for part in services[name]["command"]]
    command = command_at(plain.pop(0))
    while hasattr(command, "commands"):
        command = command.commands[plain.pop(0)]
    options = command.make_context(command.name, plain).params
    assert options["tls"] == "/certs"


def test_what_the_wheel_is_built_from_is_let_into_an_image_s_build_and_keys_are_not():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    needed = {name.split("/")[0] for name in (*files(), *sources())}
    assert let_in == needed
    # Later lines win.
    assert {"**/certs", "**/*.key"} <= set(lines[max(lines.index(f"!{name}") for name in needed) :])


def test_every_place_names_the_same_things():
    places = sorted([*ROOT.glob("deploy/*/place.env"), DOCKER / "place.env"])
    assert len(places) >= 3
    for place in places:
        names = {line.split("=")[0] for line in place.read_text().splitlines() if re.match(r"\w+=", line)}
        assert {"LMR_GALLERY", "LMR_QUERIES", "LMR_OUT"} <= names
        allowed = r"LMR_(GALLERY|QUERIES|OUT|BUCKET|TLS|UID|GID)|DASK_SCHEDULER_ADDRESS|AWS_\w+"
        assert all(re.fullmatch(allowed, name) for name in names), (place, names)
