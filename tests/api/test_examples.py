"""The notebooks and the script of examples/, run as their readers run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))
PUBLIC = ("lmr", "lmr.retrieval", "lmr.features", "lmr.evaluation", "lmr.testing")


def executed(path, monkeypatch, **options):
    """Run a notebook in a kernel of its own; return its cells with their outputs."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=240, **options).execute()
    return [cell for cell in book.cells if cell.cell_type == "code"]


def outputs(cells, kind):
    """Return all outputs of a kind: "text" that was printed, or data by its type."""
    found = []
    for cell in cells:
        for output in cell.outputs:
            if kind == "text" and output.output_type == "stream":
                found.append(output.text)
            elif kind in output.get("data", {}):
                found.append(output["data"][kind])
    return found


def test_there_are_two_notebooks_and_git_holds_no_output():
    assert NOTEBOOKS == ["one_pair.ipynb", "ten_photos.ipynb"]
    for name in NOTEBOOKS:
        for cell in json.loads((EXAMPLES / name).read_text())["cells"]:
            assert cell.get("outputs", []) == []
            assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_examples_use_public_names_only(path):
    text = path.read_text()
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    used = set(re.findall(r"^(?:from|import) (lmr[\w.]*)", text, re.MULTILINE))
    assert used
    assert used <= set(PUBLIC)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_ten_photos(monkeypatch):
    cells = executed(EXAMPLES / "ten_photos.ipynb", monkeypatch)
    labels = "".join(outputs(cells, "text"))
    assert labels.count("5 regional diffusion") == 2  # of two queries
    assert len(outputs(cells, "image/png")) == 2 + 2 * 5
    tables = outputs(cells, "text/html")
    assert any("confident" in table for table in tables)
    # The progress, as it stood at the end.
    (bars,) = [table for table in tables if "<progress" in table]
    done = dict(re.findall(r"value='(\d+)' max='(\d+)'", bars))
    assert done
    assert all(value == most for value, most in done.items())
    assert not [o for cell in cells for o in cell.outputs if o.get("name") == "stderr"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_one_pair(monkeypatch):
    cells = executed(EXAMPLES / "one_pair.ipynb", monkeypatch)
    printed = "".join(outputs(cells, "text"))
    same, other = map(int, re.search(r"inliers of one geometry: \[\s*(\d+)\s+(\d+)\]", printed).groups())
    assert same > 20 > other
    assert len(outputs(cells, "image/jpeg")) == 5


@pytest.mark.parametrize("argument", ["--help", "no-such-folder", "--nonsense"])
def test_a_script_tells_what_it_wants_without_a_traceback(argument, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "compare_settings.py"), argument],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode == 0) == (argument == "--help")
    assert "Traceback" not in done.stderr
    assert ("usage" if argument == "--nonsense" else "gallery") in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.cluster
def test_compare_settings():
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "compare_settings.py")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert re.search(r"2 spatial verification\s+\d\.\d{4}\s+\d\.\d{4}", done.stdout)
    few, many = map(int, re.search(r"confident matches\s+(\d+)\s+(\d+)", done.stdout).groups())
    assert few > many > 0
    assert re.search(r"\d+ of \d+ places hold another photo", done.stdout)
