"""`lmr weights` as a user types it."""

import http.server
import threading
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from lmr.cli import weights as cli_weights
from lmr.cli.weights import weights_app
from lmr.errors import LmrError
from lmr.features.weights import fetch as weights

CONTENT = b"weights" * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A catalogue of one checkpoint, which a server on this machine offers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        net = replace(
            weights.find_weights("xfeat"),
            name="net",
            url=f"http://127.0.0.1:{server.server_port}/x",
            sha256="",
        )
        for module in (weights, cli_weights):
            monkeypatch.setattr(module, "CHECKPOINTS", (net,))
        monkeypatch.setenv("LMR_WEIGHTS", str(tmp_path / "cache"))
        yield net
        server.shutdown()
        thread.join()


def run(*arguments):
    return CliRunner().invoke(weights_app, [str(a) for a in arguments], catch_exceptions=True)


def test_list_names_every_checkpoint_and_its_licence(monkeypatch, tmp_path):
    monkeypatch.setenv("LMR_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "xfeat.pt").touch()
    lines = run("list").output.splitlines()
    for checkpoint in weights.CHECKPOINTS:
        line = next(line for line in lines if f" {checkpoint.name} " in line)
        assert checkpoint.licence in line
        assert (" yes " in line) == (checkpoint.name == "xfeat")
        assert (f"{checkpoint.licence} *" in line) == ("imagenet" in checkpoint.name)
    assert "non-commercial" in lines[-1]


def test_fetch_then_verify(published, tmp_path):
    first = run("fetch", "net")
    assert first.exit_code == 0, first.exception
    assert "Apache-2.0" in first.output
    assert "it is now recorded" in first.output
    assert f"weights {tmp_path}/cache/xfeat.pt" in first.output
    assert "it is now recorded" not in run("fetch", "net").output
    for arguments in ([], ["net"], [tmp_path / "cache" / "xfeat.pt"]):
        assert "as recorded when it was first used here" in run("verify", *arguments).output

    (tmp_path / "cache" / "xfeat.pt").write_bytes(b"other")
    for arguments in ([], ["net"], [tmp_path / "cache" / "xfeat.pt"]):
        result = run("verify", *arguments)
        assert result.exit_code == 1
        assert isinstance(result.exception, LmrError)
        assert "refused" in result.output


def test_restrictions_are_named_before_anything_is_fetched(published, monkeypatch, tmp_path):
    bound = replace(published, restriction="for research only")
    monkeypatch.setattr(weights, "CHECKPOINTS", (bound,))
    refused = run("fetch", "net")
    assert isinstance(refused.exception, LmrError)
    assert "terms: for research only" in refused.output
    assert not (tmp_path / "cache" / "xfeat.pt").exists()
    assert run("fetch", "net", "--accept-licence").exit_code == 0


def test_verify_without_weights_or_of_a_strange_file(published, tmp_path):
    assert "no weights in" in run("verify").output
    assert "no weights at" in str(run("verify", "net").exception)
    (tmp_path / "odd.bin").touch()
    assert "no published file" in str(run("verify", tmp_path / "odd.bin").exception)
    assert "no such checkpoint" in str(run("verify", "odd").exception)


def test_convert(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "net.pth")
    result = run("convert", tmp_path / "net.pth", tmp_path / "net.safetensors")
    assert result.exit_code == 0, result.exception
    assert "1 tensors in" in result.output
    assert (tmp_path / "net.safetensors").is_file()
    assert isinstance(run("convert", tmp_path / "net.pth", tmp_path / "net.safetensors").exception, LmrError)
