"""torchvision beside a torch that its compiled operators do not fit."""

import subprocess
import sys

import pytest

CODE = """
import importlib
import torch
from lmr.features.networks import _torchvision
if {broken}:
    def refuse(path):
        raise OSError("libcudart.so: cannot open shared object file")
    torch.ops.load_library = refuse
real = importlib.import_module
def fails_once(name):
    importlib.import_module = real
    raise RuntimeError("once")
if {fails}:
    importlib.import_module = fails_once
    try:
        _torchvision.torchvision()
    except RuntimeError:
        pass
module = _torchvision.torchvision()
assert module is _torchvision.torchvision()
with torch.device("meta"):
    print(sum(p.numel() for p in module.models.resnet18(weights=None).parameters()))
"""


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("broken", [False, True])
def test_networks_come_whether_the_operators_load_or_not(broken, fails):
    code = CODE.format(broken=broken, fails=fails)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "11689512"
