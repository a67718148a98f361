"""TensorFlow's files: pieces of the release itself, checkpoints by rule, and damage."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.features.networks.by_rule import write_delf_variables
from lmr.features.weights._leveldb import crc32c, read_table
from lmr.features.weights.tensorflow_files import read_bundle, read_bundle_index, read_datum, read_delf
from tests.support.shared import shared

POLYNOMIAL = 0x82F63B78


@pytest.mark.parametrize(  # RFC 3720, B.4
    ("data", "checksum"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_known_checksums(data, checksum):
    assert crc32c(data) == checksum


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9000), st.integers(0, 2**32 - 1))
def test_checksums_bit_by_bit(length, seed):
    data = np.random.default_rng(seed).bytes(length)
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (POLYNOMIAL if state & 1 else 0)
    assert crc32c(data) == state ^ 0xFFFFFFFF


def test_the_released_index_is_read_through_snappy():
    released, files = read_bundle_index(shared("golden/delf_v1/released/variables.index"))
    ours, _ = read_bundle_index(shared("golden/delf_v1/variables.index"))
    assert files == 1
    assert len(released) == 222
    end = max(entry.offset + entry.size for entry in released.values())
    assert end == 36_402_948
    places = [{n: (e.dtype, e.shape, e.offset, e.size) for n, e in one.items()} for one in (released, ours)]
    assert places[0] == places[1]
    assert released["resnet_v1_50/conv1/weights"].shape == (7, 7, 3, 64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder, golden = tmp_path_factory.mktemp("checkpoint"), shared("golden/delf_v1")
    shutil.copy(golden / "variables.index", folder)
    cases = json.loads((golden / "cases.json").read_text())
    write_delf_variables(cases, folder / "variables.data-00000-of-00001")
    return folder


def test_a_checkpoint_by_rule(checkpoint):
    tensors = read_bundle(checkpoint / "variables.index")
    assert len(tensors) == 222
    assert tensors["attonly/attention/compute/conv2/weights"].shape == (1, 1, 512, 1)


def test_a_changed_bit_is_found(checkpoint, tmp_path):
    for name in ("variables.index", "variables.data-00000-of-00001"):
        shutil.copy(checkpoint / name, tmp_path)
    data = tmp_path / "variables.data-00000-of-00001"
    with open(data, "r+b") as file:
        file.seek(20_000_001)
        byte = file.read(1)[0]
        file.seek(20_000_001)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(LmrError, match="damaged, or of another checkpoint"):
        read_bundle(tmp_path / "variables.index")
    data.unlink()
    with pytest.raises(LmrError, match=r"cannot read .*data-00000-of-00001"):
        read_bundle(tmp_path / "variables.index")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3774), st.integers(1, 255))
def test_a_changed_byte_of_the_index_is_never_read_as_something_else(position, change):
    data = bytearray(shared("golden/delf_v1/released/variables.index").read_bytes())
    truth = read_table(bytes(data))
    data[position] ^= change
    try:
        table = read_table(bytes(data))
    except LmrError:
        return
    assert table == truth  # of the footer's 48 bytes, a few mean nothing


def test_the_released_datum_files():
    mean = read_datum(shared("golden/delf_v1/released/mean.datum"))
    variance = read_datum(shared("golden/delf_v1/released/pca_variances.datum"))
    assert mean.shape == variance.shape == (1, 1024)
    assert mean.dtype == np.float32
    assert (np.diff(variance[0]) <= 0).all()
    assert (variance > 0).all()


def test_features_that_the_original_wrote():
    found = read_delf(shared("golden/delf_v1/released/love.delf"))
    assert found.descriptor.shape == (546, 40)
    np.testing.assert_allclose(np.linalg.norm(found.descriptor.astype(np.float32), axis=1), 1, atol=2e-3)
    assert (np.diff(found.score) <= 0).all()
    np.testing.assert_allclose([found.score.min(), found.score.max()], [100.03, 429.6], atol=0.05)
    assert (found.orientation == 0).all()
    np.testing.assert_allclose([found.scale.min(), found.scale.max()], [0.5, 4.0], rtol=1e-6)
    steps = found.xy / (32 * found.scale[:, None])
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


@pytest.mark.parametrize("reader", [read_datum, read_delf, read_bundle_index])
def test_damaged_files_are_named(reader, tmp_path):
    whole = shared("golden/delf_v1/released/love.delf").read_bytes()
    for content in (whole[:1000], b"\xff" * 50, b"\x0b"):
        path = tmp_path / "piece"
        path.write_bytes(content)
        with pytest.raises(LmrError):
            reader(path)
    with pytest.raises(LmrError, match="cannot read"):
        reader(tmp_path / "absent")
