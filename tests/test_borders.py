"""The floors of the house: who may import whom (ARCHITECTURE.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "runtime": {"lmr.errors", "lmr.shipped", "lmr.versions", "lmr.runtime"},
    "retrieval": {"lmr.errors", "lmr.retrieval"},
    "features": {"lmr.errors", "lmr.features"},
    "evaluation": {"lmr.errors", "lmr.evaluation"},
    "synthetic": {"lmr.errors", "lmr.synthetic"},
    "cloud": {"lmr.errors", "lmr.shipped", "lmr.cloud"},
    "lab": {"lmr.errors", "lmr.lab"},
    "steps": {"lmr.errors", "lmr.runtime", "lmr.retrieval", "lmr.features", "lmr.evaluation", "lmr.steps"},
}
ONLY_IN = {
    "dask": "runtime",
    "distributed": "runtime",
    "torch": "features",
    "torchvision": "features",
    "kornia": "features",
    "boto3": "cloud",
    "botocore": "cloud",
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def modules(package):
    return sorted((ROOT / "lmr" / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_floors(package):
    assert modules(package)
    for path in modules(package):
        for name in imports(path):
            if name.split(".")[0] in ("lmr", "workflows"):
                assert any(
                    name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_IMPORT[package]
                ), f"{path.relative_to(ROOT)} imports {name}"


def test_engines_stay_on_their_floor():
    for path in sorted((ROOT / "lmr").rglob("*.py")) + sorted((ROOT / "workflows").rglob("*.py")):
        for name in imports(path):
            floor = ONLY_IN.get(name.split(".")[0])
            assert floor is None or floor in path.parts, f"{path.relative_to(ROOT)} imports {name}"


def test_a_cpu_worker_needs_no_torch():
    code = (
        "import sys, lmr.cli, workflows.retrieval\n"
        "print(sorted(m for m in ('torch', 'torchvision', 'matplotlib', 'boto3') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
