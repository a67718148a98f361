"""State dicts read without torch: the same tensors as torch reads, and nothing else."""

import pickle
import re
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch

from lmr.errors import LmrError
from lmr.features.weights.state_dicts import read_state_dict

FORMATS = [pytest.param(True, id="zip"), pytest.param(False, id="before torch 1.6")]


def tensors():
    rng = torch.Generator().manual_seed(0)
    whole = torch.rand(6, 8, generator=rng)
    return {
        "float.weight": whole,
        "view.of.it": whole[1:5:2, 2:],
        "transposed": whole.T,
        "double": torch.rand(3, dtype=torch.float64, generator=rng),
        "half": torch.rand(2, 2, generator=rng).half(),
        "count": torch.tensor(7),
        "none": torch.empty(0, 4),
    }


@pytest.mark.parametrize("zipped", FORMATS)
def test_the_tensors_are_those_that_torch_reads(zipped, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
    expected = torch.load(path, weights_only=True)
    for given in (path, str(path)):
        read = read_state_dict(given)
        assert list(read) == list(expected)
        for name, tensor in expected.items():
            assert read[name].dtype == tensor.numpy().dtype
            np.testing.assert_array_equal(read[name], tensor.numpy())


def test_a_module_with_metadata_is_read_too(tmp_path):
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(layer.state_dict(), tmp_path / "net.pth")
    read = read_state_dict(tmp_path / "net.pth")
    assert {name: array.shape for name, array in read.items()} == {
        name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()
    }


class Trap:
    """What it names is called by a reader that runs pickles."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", FORMATS)
def test_code_is_refused_and_not_run(zipped, tmp_path):
    torch.save(
        {"weight": Trap(tmp_path / "sprung")}, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(LmrError, match="names code that no state dict needs") as refused:
        read_state_dict(tmp_path / "net.pth")
    assert "open" in refused.value.got
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("zipped", FORMATS)
def test_a_cut_or_changed_file_is_told_whatever_its_bytes(zipped, tmp_path):
    path, other = tmp_path / "net.pth", tmp_path / "other.pth"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for end in range(0, len(data) - 1, max(1, len(data) // 60)):
        other.write_bytes(data[:end])
        with pytest.raises(LmrError):
            read_state_dict(other)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), 200):
        other.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with suppress(LmrError):  # a changed number is no damage that can be seen
            read_state_dict(other)


@pytest.mark.parametrize("method", [8, 12, 14, 99], ids=["deflate", "bzip2", "LZMA", "unknown"])
def test_an_archive_that_names_another_compression_is_told(method, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(tensors(), path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0].header_offset
    entry, content = data.index(b"PK\1\2"), data.index(b"\x80\2", first)
    for place in (first + 8, entry + 10):
        data[place : place + 2] = method.to_bytes(2, "little")
    data[content : content + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(LmrError, match="damaged"):
        read_state_dict(path)


@pytest.mark.parametrize("more", [64, 1 << 20])
def test_an_archive_that_names_more_bytes_than_there_are_is_told(more, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(tensors(), path)
    data = bytearray(path.read_bytes())
    for entry in [found.start() for found in re.finditer(b"PK\1\2", bytes(data))]:
        for place in (entry + 20, entry + 24):
            data[place : place + 4] = (int.from_bytes(data[place : place + 4], "little") + more).to_bytes(
                4, "little"
            )
    path.write_bytes(data)
    with pytest.raises(LmrError, match="damaged"):
        read_state_dict(path)


def test_other_files_are_told(tmp_path):
    with pytest.raises(LmrError, match="there are no weights"):
        read_state_dict(tmp_path / "none.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(LmrError, match="is no state dict"):
        read_state_dict(tmp_path / "list.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(LmrError, match="is damaged, or not a file of weights"):
        read_state_dict(tmp_path / "plain.pth")
