import pytest
import torch

from lmr.errors import LmrError
from lmr.features.networks.devices import compute_device, compute_dtype


@pytest.fixture
def one_gpu(monkeypatch):
    """A machine that says it has a GPU, with torch's own defaults."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_float32_on_a_gpu_is_float32(one_gpu):
    compute_device("cpu")
    assert torch.backends.cudnn.allow_tf32  # nothing is changed for who runs on the CPU
    compute_device("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_the_precision_follows_the_device_unless_given():
    assert compute_dtype(None, torch.device("cpu")) == torch.float32
    assert compute_dtype(None, torch.device("cuda")) == torch.float16
    assert compute_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    with pytest.raises(LmrError, match="unknown precision"):
        compute_dtype("float8", torch.device("cpu"))


@pytest.mark.parametrize("name", ["tpu", "cuda:1", "meta", ""])
def test_devices_that_are_not_there_are_refused(one_gpu, name):
    with pytest.raises(LmrError, match="device"):
        compute_device(name)
