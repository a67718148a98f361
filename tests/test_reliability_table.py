"""Every fault in `docs/reliability.md` names the test that tried it, and that test exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = {"## Faults tried": "fault", "## Dask's traps, and what is done about them": "trap"}
"""The tables whose rows are trials, by the section that they stand in; and the head of their first column."""


def rows(text, section):
    """Return the rows of the table in a section, without its head, as lists of cells."""
    body = re.split(r"^## ", text.split(f"{section}\n", 1)[1], flags=re.MULTILINE)[0]
    lines = [line for line in body.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[0][0] == TABLES[section]
    return cells[2:]


def documented():
    text = (ROOT / "docs" / "reliability.md").read_text()
    return [(section, row) for section in TABLES for row in rows(text, section)]


def functions(path):
    """Return the names of a test file's tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


FILES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "tests").rglob("test_*.py")}
ALL = {name: functions(path) for name, path in FILES.items()}


def missing(cell):
    """Return what a cell names that is not there; an ellipsis stands for the rest of a test's name."""
    named = re.findall(r"`([^`]*\btest_[^`]*)`", cell)
    if not named:
        return ["any test"]
    lost, folder = [], ""
    for name in named:
        file, _, function = name.partition("::")
        if file.endswith(".py"):
            path = file if "/" in file else f"{folder}/{file}"  # beside the one before
            folder = path.rpartition("/")[0]
            if path not in FILES:
                lost.append(path)
            elif function and function not in ALL[path]:
                lost.append(name)
        elif not any(
            one.startswith(name.removesuffix("…")) if name.endswith("…") else one == name
            for some in ALL.values()
            for one in some
        ):
            lost.append(name)
    return lost


@pytest.mark.parametrize(
    ("section", "row"), documented(), ids=[f"{number}" for number, _ in enumerate(documented())]
)
def test_a_row_names_a_test_that_exists(section, row):
    assert len(row) == 3, row
    assert missing(row[2]) == [], row[0]


def test_the_tables_are_read_whole():
    assert len(documented()) > 80


@pytest.mark.parametrize(
    ("cell", "lost"),
    [
        ("", ["any test"]),
        ("tried by hand", ["any test"]),
        ("`tests/test_reliability_table.py`", []),
        ("`tests/test_nothing.py`", ["tests/test_nothing.py"]),
        ("`tests/storage/test_fuzz.py`, `test_mapped.py`", []),
        ("`tests/storage/test_fuzz.py`, `test_nothing.py`", ["tests/storage/test_nothing.py"]),
        ("`tests/test_text.py::test_of_nothing`", ["tests/test_text.py::test_of_nothing"]),
        ("`test_the_tables_are_read_whole`, `test_the_tables_…`", []),
        ("`test_of_noth…`", ["test_of_noth…"]),
    ],
)
def test_what_is_not_there_is_seen(cell, lost):
    assert missing(cell) == lost
