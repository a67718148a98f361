"""The floors of the house: who may import whom (ARCHITECTURE.md)."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = {"lmr.errors", "lmr.text"}
MAY_IMPORT = {
    "storage": GROUND | {"lmr.storage"},
    "runtime": GROUND | {"lmr.shipped", "lmr.storage", "lmr.runtime"},
    "cluster": GROUND | {"lmr.shipped", "lmr.versions", "lmr.storage", "lmr.runtime", "lmr.cluster"},
    "scheduler": GROUND | {"lmr.storage", "lmr.runtime", "lmr.cluster", "lmr.scheduler"},
    "retrieval": GROUND | {"lmr.retrieval"},
    "features": GROUND | {"lmr.features"},
    "evaluation": GROUND | {"lmr.evaluation"},
    "testing": GROUND | {"lmr.testing"},
    "cloud": GROUND | {"lmr.shipped", "lmr.cloud"},
    "lab": GROUND | {"lmr.lab"},
    "collections": GROUND | {"lmr.storage", "lmr.evaluation", "lmr.collections"},
    "steps": GROUND
    | {"lmr.storage", "lmr.runtime", "lmr.retrieval", "lmr.features", "lmr.evaluation", "lmr.steps"},
}
ONLY_IN = {
    "dask": ("runtime", "cluster", "scheduler"),
    "distributed": ("runtime", "cluster", "scheduler"),
    "torch": ("features", "_gpu_torch.py"),
    "torchvision": ("features",),
    "kornia": ("features",),
    "boto3": ("cloud",),
    "botocore": ("cloud",),
}


def imports(path):
    """Yield the modules that a file imports; of `from lmr import name`, the name's."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "lmr":
            yield from (f"lmr.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def sources():
    return sorted((ROOT / "lmr").rglob("*.py")) + sorted((ROOT / "workflows").rglob("*.py"))


def modules(package):
    return sorted((ROOT / "lmr" / package).rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_floors(package):
    assert modules(package)
    for path in modules(package):
        for name in imports(path):
            if name.split(".")[0] in ("lmr", "workflows"):
                assert any(
                    name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_IMPORT[package]
                ), f"{path.relative_to(ROOT)} imports {name}"


def test_every_room_has_its_floor():
    rooms = {path.parent.name for path in (ROOT / "lmr").glob("*/__init__.py")}
    assert rooms == {*MAY_IMPORT, "api", "cli"}


def test_engines_stay_on_their_floor():
    for path in sources():
        for name in imports(path):
            floors = ONLY_IN.get(name.split(".")[0])
            assert floors is None or set(floors) & set(path.parts), f"{path.relative_to(ROOT)} imports {name}"


def test_no_import_runs_in_a_circle():
    """Those inside functions count too: a circle that is hidden is a circle."""
    files = {name_of(path): path for path in sources()}
    graph = {}
    for name, path in files.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                within = {f"{node.module}.{alias.name}" for alias in node.names} & files.keys()
                # `from package import name` needs the package's own file only where the name is its own.
                whole = len(within) == len(node.names)
                found |= within | (set() if whole else {node.module} & files.keys())
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names} & files.keys()
        # The public face names what it hands on, for readers and type checkers; it imports nothing by that.
        graph[name] = set() if name == "lmr" else found - {name, "lmr"}
    graphlib.TopologicalSorter(graph).prepare()


def test_a_cpu_worker_needs_no_torch():
    code = (
        "import sys, lmr.cli.main, workflows.retrieval\n"
        "print(sorted(m for m in ('torch', 'torchvision', 'matplotlib', 'boto3') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("folder", "other"), [("benchmarks", "tests"), ("tests", "benchmarks"), ("lmr", "tests")]
)
def test_what_two_folders_need_lies_in_the_package(folder, other):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    found = {path: name for path in paths for name in imports(path) if name and name.split(".")[0] == other}
    assert not found
