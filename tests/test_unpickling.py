"""Nothing is unpickled from storage: a pickle is a program, and whoever can write there could run it here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
READS = {"load", "loads", "Unpickler", "open"}
PANDAS = {"read_pickle"}

ALLOWED = {
    # What the scheduler sends over the cluster's own, authenticated connection; it is in no storage.
    "lmr/scheduler/runs.py: pickle.loads",
    # What a run expects of its workers, on the same connection: from its submitter to the scheduler, and from
    # there to every worker that joins.
    "lmr/scheduler/admission.py: pickle.loads",
    "lmr/cluster/worker.py: pickle.loads",
    "lmr/cluster/admission.py: pickle.loads",
    # The ground truth of revisited Oxford and Paris: every name in it is looked up in a list of stand-ins;
    # tests/collections/test_pickles.py shows that nothing else is called.
    "lmr/collections/pickles.py: pickle.Unpickler",
}


def offences(source):
    """Yield the calls in a source that may run what they read."""
    tree = ast.parse(source)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            names.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
        elif isinstance(node, ast.Import):
            names.update({a.asname: a.name for a in node.names if a.asname})
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call | ast.Attribute | ast.Name):
            continue
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ast.unparse(node)
        head, _, last = called.rpartition(".")
        module = names.get(head, head)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords} if isinstance(node, ast.Call) else {}
        if isinstance(node, ast.Name):
            if names.get(called, "").rpartition(".")[2] in READS:
                yield names[called]
        elif module.split(".")[0] in UNPICKLERS and last in READS:
            yield f"{module}.{last}"
        elif last in PANDAS:
            yield called
        elif isinstance(node, ast.Call):
            if module == "torch" and last == "load" and keywords.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if keywords.get("allow_pickle", "False") != "False":
                yield f"{called} with allow_pickle"


def test_nothing_in_lmr_unpickles_but_what_is_named_here():
    found = set()
    for path in sorted([*(ROOT / "lmr").rglob("*.py"), *(ROOT / "workflows").rglob("*.py")]):
        found |= {f"{path.relative_to(ROOT)}: {offence}" for offence in offences(path.read_text())}
    assert found <= ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "import pickle as p\np.loads(b)",
        "from pickle import loads\nloads(b)",
        "import pickle\nread = pickle.loads",
        "import pickle\nclass A(pickle.Unpickler): pass",
        "import cloudpickle\ncloudpickle.load(f)",
        "import joblib\njoblib.load(f)",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import pandas as pd\npd.read_pickle(f)",
        "import shelve\nshelve.open(f)",
    ],
)
def test_the_test_sees_what_it_is_for(source):
    assert list(offences(source))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.dumps(x)",
        "import torch\ntorch.load(f, weights_only=True)",
        "import numpy as np\nnp.load(f)\nnp.load(f, allow_pickle=False)",
        "import json\njson.load(f)\nopen(f)",
    ],
)
def test_what_is_harmless_passes(source):
    assert not list(offences(source))
