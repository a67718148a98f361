"""Files of weights: what is read, and what is refused without being run."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lmr.errors import LmrError
from lmr.features.weights.checkpoints import read_global_checkpoint
from lmr.features.weights.files import read_torch_file
from lmr.features.weights.global_checkpoint import CheckpointWhitening


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path, legacy):
    trace = tmp_path / "trace"
    content = {"state_dict": {}, "model_options": {}, "pca": {"Landmarks_clean": Harmful(trace)}}
    torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(LmrError, match=r"was not run[\s\S]*system"):
        read_torch_file(tmp_path / "net.pt")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "sklearn.pipeline.Pipeline", "numpy.load", "torch.load"])
def test_only_what_checkpoints_hold_is_allowed(tmp_path, name):
    module, _, leaf = name.rpartition(".")
    program = b"\x80\x02c" + module.encode() + b"\n" + leaf.encode() + b"\nX\x01\x00\x00\x001\x85R."
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as file:
        file.writestr("net/data.pkl", program)
        file.writestr("net/version", "3\n")
    with pytest.raises(LmrError, match="was not run"):
        read_torch_file(tmp_path / "net.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_arrays_of_numpy_are_read(tmp_path, legacy):
    content = {"m": np.arange(6.0).reshape(2, 3), "n": np.float32(2), "t": torch.ones(2)}
    torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=not legacy)
    found = read_torch_file(tmp_path / "net.pt")
    np.testing.assert_array_equal(found["m"], content["m"])
    assert found["n"] == 2
    assert torch.equal(found["t"], torch.ones(2))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, pickle.dumps([1, 2]), b"PK\x03\x04 not a zip"])
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(LmrError, match=r"net\.pth"):
        read_global_checkpoint(tmp_path / "net.pth")


def test_truncated_files_are_named(tmp_path):
    buffer = io.BytesIO()
    torch.save({"conv1.weight": torch.ones(100, 100)}, buffer)
    for name in ("net.pth", "net.safetensors"):
        (tmp_path / name).write_bytes(buffer.getvalue()[:-2000])
        with pytest.raises(LmrError, match="damaged"):
            read_global_checkpoint(tmp_path / name, architecture="resnet18")


def test_missing_files_are_named(tmp_path):
    for name in ("net.pth", "net.safetensors"):
        with pytest.raises(LmrError, match="no weights at"):
            read_global_checkpoint(tmp_path / name)


def test_safetensors_are_read_as_plain_state_dicts(tmp_path):
    state = {
        "conv1.weight": torch.rand(2, 3),
        "layer4.1.bn2.bias": torch.rand(4),
        "fc.weight": torch.rand(5, 2),
    }
    save_file(state, tmp_path / "net.safetensors")
    torch.save(state, tmp_path / "net.pth")
    for name in ("net.safetensors", "net.pth"):
        checkpoint = read_global_checkpoint(tmp_path / name, architecture="resnet18", p=2.5)
        assert sorted(checkpoint.trunk) == ["0.weight", "7.1.bn2.bias"]
        assert torch.equal(checkpoint.trunk["0.weight"], state["conv1.weight"])
        assert float(checkpoint.p) == 2.5


@pytest.mark.parametrize(
    "content",
    [
        {"meta": {"architecture": "resnet18"}, "state_dict": {}},
        {"meta": {"pooling": "median"}, "state_dict": {}},
        {"model_options": {"arch": "resnet18_rmac"}, "state_dict": {}},
        {"model_options": {"arch": "resnet50_fpn_rmac", "pooling": "two"}, "state_dict": {}},
        {"epoch": 3, "optimizer": {}},
        [torch.ones(2)],
    ],
)
def test_unknown_kinds_and_missing_parts_are_errors_of_ours(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(LmrError):
        read_global_checkpoint(tmp_path / "net.pth", architecture="resnet18")


def test_whitening_by_hand():
    whitening = CheckpointWhitening(np.array([1.0, 0.0]), np.array([[2.0, 0.0], [0.0, 1.0]]))
    rows = whitening(np.array([[2.0, 2.0], [1.0, 5.0]], np.float32))
    np.testing.assert_allclose(rows, [[2**-0.5, 2**-0.5], [0, 1]])
    np.testing.assert_allclose(whitening(np.array([[0.0, 9.0]], np.float32), dimension=1), [[-1.0]])
