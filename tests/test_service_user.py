"""A user without home, on code that is root's: every command works, and says where compiled code is kept."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USER = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


@pytest.fixture(scope="module")
def place():
    """A copy of the code that only root may write, and a temporary folder for all (pytest's is root's)."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for part in ("lmr", "workflows"):
            shutil.copytree(ROOT / part, top / "code" / part, ignore=shutil.ignore_patterns("__pycache__"))
        (top / "tmp").mkdir()
        (top / "tmp").chmod(0o1777)
        top.chmod(0o755)
        yield top


def lmr(place, *arguments, **environment):
    """Run a command as the user."""
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place / "code"), "TMPDIR": str(place / "tmp")}
    return subprocess.run(
        [*become, sys.executable, "-m", "lmr", *map(str, arguments)],
        env=own | environment,
        capture_output=True,
        text=True,
        cwd="/",
        timeout=600,
    )


def test_the_version_and_one_line_about_compiled_code(place):
    done = lmr(place, "version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"lmr keeps compiled code in {place}/tmp/lmr-{USER}/lmr-compiled: ")
    assert lmr(place, "--help").returncode == 0


def test_a_chosen_cache_needs_no_word(place):
    chosen = place / "tmp" / "chosen"
    done = lmr(place, "version", LMR_CACHE=str(chosen))
    assert (done.returncode, done.stderr) == (0, "")
    assert (chosen / "lmr-compiled" / "CACHEDIR.TAG").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_photos_are_rendered_retrieved_and_evaluated(place):
    world, run = place / "tmp" / "world", place / "tmp" / "run"
    small = ("--landmarks", 2, "--queries", 5, "--distractors", 2, "--long-side-px", 192)
    photos = ("--gallery", world / "gallery", "--queries", world / "queries")
    for command in (
        ("render", world, *small),
        ("run", "retrieval", *photos, "--out", run, "--workers", 0),
        ("evaluate", run / "submission.csv", "--solution", world / "solution.csv"),
    ):
        done = lmr(place, *command)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        # Processes that are started from here inherit the choice and do not repeat it.
        assert done.stderr.count("lmr keeps compiled code in") == 1
    assert list((place / "tmp" / f"lmr-{USER}" / "lmr-compiled").rglob("*.nbc"))
    assert not [f.name for f in (place / "tmp").iterdir() if f.name.startswith("dask-")]
