"""The names that a Python program imports, and what importing them loads."""

import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lmr.errors import LmrError

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("boto3", "cv2", "dask", "distributed", "faiss", "fsspec", "numba", "numpy", "pandas"),
    *("pyarrow", "scipy", "torch"),
)
HELP_SECONDS = 0.4
"""Goal of `lmr --help` and `lmr version`: CPU of the process, whatever else the machine does."""


def loaded_by(code):
    """Return which heavy modules a fresh process has loaded after some code."""
    code = f"import sys, json\n{code}\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("face", ["lmr", "lmr.retrieval", "lmr.features", "lmr.evaluation"])
def test_every_name_of_a_face_is_there_and_its_module_is_its_home(face):
    module = importlib.import_module(face)
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        found = getattr(module, name)
        assert found.__module__.startswith("lmr.")
        assert name in dir(module)
        assert getattr(importlib.import_module(found.__module__), name) is found
    with pytest.raises(AttributeError, match=f"module '{face}' has no attribute 'nothing'"):
        _ = module.nothing


def test_a_face_hands_on_the_functions_of_the_stages():
    from lmr.features import RootSift, load_xfeat
    from lmr.retrieval import diffuse, top_k, verify_pairs

    assert RootSift.__module__ == "lmr.features.local.rootsift"
    assert load_xfeat.__module__ == "lmr.features.local.learned"
    assert diffuse.__module__ == "lmr.retrieval.diffusion.online"
    assert verify_pairs.__module__ == "lmr.retrieval.verification.verify"
    rows = np.eye(3, dtype=np.float32)
    assert top_k(rows, [(0, rows)], 1)[1].ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "code",
    [
        "import lmr",
        "import lmr.retrieval, lmr.features, lmr.evaluation; dir(lmr), dir(lmr.retrieval), dir(lmr.features)",
        "from typer.testing import CliRunner\n"
        "from lmr.cli.main import app\n"
        "assert 'retrieve' not in CliRunner().invoke(app, ['--help'], catch_exceptions=False).output",
        "from typer.testing import CliRunner\n"
        "from lmr.cli.main import app\n"
        "assert CliRunner().invoke(app, ['version'], catch_exceptions=False).output.strip()",
    ],
    ids=["import lmr", "faces", "lmr --help", "lmr version"],
)
def test_starting_loads_nothing_heavy(code):
    assert loaded_by(code) == []


def test_what_is_loaded_is_told():
    """So that the test above can fail."""
    assert {"dask", "numpy", "pyarrow"} <= set(loaded_by("import lmr; lmr.retrieve"))


@pytest.mark.parametrize("arguments", [["--help"], ["version"]], ids=" ".join)
def test_starting_is_quick(arguments):
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "lmr", *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # Half as much again: other processes of the machine share its caches, and count in this one's seconds.
    assert min(took) <= 1.5 * HELP_SECONDS, took


def test_without_torch_the_extra_is_named():
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from lmr.errors import LmrError\n"
        "try:\n"
        "    from lmr.features import load_xfeat\n"
        "except LmrError as error:\n"
        "    print(error)\n"
        "from lmr.features import RootSift"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith("load_xfeat needs a package that is not installed")
    assert 'pip install "lmr[features]"' in done.stdout


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize("loader", ["load_xfeat", "load_aliked", "load_delf", "load_gem"])
def test_weights_are_given_as_text_or_as_a_path(tmp_path, loader, suffix, kind):
    """A file that is not there is a user's error; nothing asks a text for what only a path has."""
    pytest.importorskip("torch")
    load = getattr(importlib.import_module("lmr.features"), loader)
    missing = tmp_path / f"absent{suffix}"
    with pytest.raises(LmrError, match="absent"):
        load(kind(missing))


@pytest.mark.parametrize("kind", [str, Path])
def test_weights_are_converted_at_either(tmp_path, kind):
    torch = pytest.importorskip("torch")
    from lmr.features.weights.convert import convert

    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    assert convert(kind(tmp_path / "a.pt"), kind(tmp_path / "a.safetensors")) == 1
