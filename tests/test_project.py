"""What the files at the top say is so: commands exist, versions and lists agree, links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_every_make_command_that_is_named_is_there_and_listed():
    texts = [(ROOT / page).read_text() for page in (*PAGES, ".ci/run", ".github/pull_request_template.md")]
    texts += [path.read_text() for path in WORKFLOWS]
    command = re.compile(r"(?:^|[`&:] ?)make ([a-z]+(?:-[a-z]+)*)", re.MULTILINE)
    named = {name for text in texts for name in command.findall(text)}
    assert {"demo", "test", "test-all", "lint", "system", "help"} <= named
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert named <= set(re.findall(r"make ([a-z-]+)", listed))


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()


def test_every_python_that_is_promised_is_tested():
    promised = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]
    assert jobs["fast"]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_project_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)[^):]*\)", (ROOT / page).read_text())
    assert all((ROOT / link).exists() for link in links), links


def test_the_base_package_brings_no_torch_and_no_test_tools():
    base = {re.split(r"[\[<>=, ]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert not base & {"torch", "torchvision", "kornia", "moto", "pytest", "boto3", "pandas"}


ONCE = """
import os
from pathlib import Path
seen = Path("seen")
if "PYTEST_XDIST_WORKER" not in os.environ and not seen.exists():
    seen.touch()
    raise RuntimeError("the first time only")
"""
MARKS = "[pytest]\nmarkers =\n    slow\n    cluster\n    hosts\n    system\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "other", "passes"),
    [
        ("{slow}\ndef test_first():\n" + ONCE.replace("\n", "\n    "), "pass", True),
        ("{slow}\ndef test_first():\n    raise AssertionError", "pass", False),
        # The file that could not be imported passes when it runs again; the other test never does.
        (ONCE + "\n{slow}\ndef test_first():\n    pass", "raise AssertionError", False),
    ],
    ids=["failed once", "fails", "not imported once"],
)
def test_make_runs_failed_tests_once_more_and_leaves_none_out(tmp_path, first, other, passes):
    slow = "import pytest\n@pytest.mark.slow"
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pytest.ini").write_text(MARKS)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in (
        "pyproject.toml",
        "constraints.txt",
        ".venv/base",
        ".venv/dev",
    ):  # no install
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "test_first.py").write_text(first.format(slow=slow))
    (tmp_path / "test_other.py").write_text(f"{slow}\ndef test_other():\n    {other}\n")
    (tmp_path / "test_fast.py").write_text("def test_fast():\n    pass\n")
    # This test may itself run beside others, which is not to be told to the tests that `make` runs.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    made = subprocess.run(
        ["make", "test-all"], cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=120
    )
    assert (made.returncode == 0) is passes, made.stdout + made.stderr
    assert "rerun previous" in made.stdout
