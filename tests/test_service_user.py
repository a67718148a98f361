"""A user without home, on code that is root's: every command works, and says where compiled code is kept."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
USER = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


BECOME = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
PYTHON = Path(os.path.realpath(sys.executable))


def can_run(python):
    """Tell whether the user could start this interpreter; root's own home is closed to others."""
    return subprocess.run([*BECOME, "test", "-x", python], check=False).returncode == 0


@pytest.fixture(scope="module")
def place():
    """A copy of the code that only root may write, and a temporary folder for all (pytest's is root's)."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for part in ("lmr", "workflows"):
            shutil.copytree(ROOT / part, top / "code" / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in (".dockerignore", "LICENSE", "README.md", "constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / part, top / "code")
        (top / "python").mkdir()
        (top / "tmp").mkdir()
        (top / "tmp").chmod(0o1777)
        (top / "locked").mkdir(mode=0o700)
        shutil.copy(PYTHON, top / "locked" / "python")
        top.chmod(0o755)
        yield top


def lmr(place, *arguments, python=None, before="", timeout=600, **environment):
    """Run a command as the user; `before` is run as root, in a mount namespace of its own.

    Where the interpreter lies in a folder that is root's alone, it is mounted where the user can reach it:
    what it cannot start again, workers and the decoder of photos, would not be there else.
    """
    own = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{place / 'code'}:{sysconfig.get_path('purelib')}",
        "TMPDIR": str(place / "tmp"),
        # An interpreter that was built with a shared library looks for it where it was built.
        "LD_LIBRARY_PATH": str(place / "python" / "lib"),
    }
    mounted = not can_run(PYTHON) or before or python
    reached = place / "python" / "bin" / PYTHON.name if mounted else sys.executable
    command = [*BECOME, str(python or reached), "-m", "lmr", *map(str, arguments)]
    if mounted:
        script = f'mount --bind "$1" "$2" && shift 2 && {before or "true"} && exec "$@"'
        mount = ["unshare", "-m", "sh", "-c", script, "sh"]
        if subprocess.run([*mount[:2], "true"], capture_output=True, check=False).returncode:
            pytest.skip("needs mount namespaces: the interpreter is out of the user's reach")
        command = [*mount, str(PYTHON.parents[1]), str(place / "python"), *command]
    return subprocess.run(
        command, env=own | environment, capture_output=True, text=True, cwd="/", timeout=timeout
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
        ("run", "retrieval", *photos, "--out", place / "tmp" / "by a worker", "--workers", 1),
        ("evaluate", run / "submission.csv", "--solution", world / "solution.csv"),
    ):
        done = lmr(place, *command)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        # Processes that are started from here inherit the choice and do not repeat it.
        assert done.stderr.count("lmr keeps compiled code in") == 1
    ours = [(folder / "submission.csv").read_bytes() for folder in (run, place / "tmp" / "by a worker")]
    assert ours[0] == ours[1]
    assert list((place / "tmp" / f"lmr-{USER}" / "lmr-compiled").rglob("*.nbc"))
    assert not [f.name for f in (place / "tmp").iterdir() if f.name.startswith("dask-")]


@pytest.fixture(scope="module")
def photo(place):
    """A photo in a folder that the user may read."""
    folder = place / "photo"
    folder.mkdir()
    Image.new("RGB", (64, 64), "teal").save(folder / "one.jpg")
    return "--gallery", folder, "--queries", folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_an_interpreter_that_cannot_be_started_again_is_told_in_seconds(place, photo, workers):
    """Dask waits without a word for worker processes that never come."""
    began = time.monotonic()
    out = place / "tmp" / f"locked {workers}"
    done = lmr(
        place,
        *("run", "retrieval", *photo, "--out", out, "--workers", workers),
        python=place / "locked" / "python",
        PYTHONHOME=str(place / "python"),
        timeout=200,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert ("worker processes cannot be started" in done.stderr) == (workers == 1), done.stderr
    assert ("the process that decodes photos cannot be started" in done.stderr) == (workers == 0)
    assert "fix: use a Python that this user may run" in done.stderr
    assert time.monotonic() - began < 120
    # What the fix says is done: an interpreter that can be started.
    if workers == 1:
        done = lmr(place, "run", "retrieval", *photo, "--out", out, "--workers", 1)
        assert "cannot be started" not in done.stderr


def test_where_nothing_can_be_written_help_is_there_and_commands_say_why(place, photo):
    read_only = "for f in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o mode=755 none $f; done"
    # The copy of the code lies in one of these: it is mounted anew.
    keep = f"mount --rbind {place} /mnt && {read_only} && mkdir -p {place} && mount --rbind /mnt {place}"
    nothing = {"TMPDIR": "/nowhere", "HOME": "/nowhere"}
    assert lmr(place, "version", before=keep, **nothing).stdout.startswith("0.")
    done = lmr(place, "run", "retrieval", *photo, "--out", "/out", before=keep, **nothing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error no folder can be written for compiled code" in done.stderr
    assert "fix: set LMR_CACHE" in done.stderr
    chosen = {"LMR_CACHE": str(place / "tmp" / "chosen for this")}
    done = lmr(place, "run", "retrieval", *photo, "--out", "/out", "--plan", before=keep, **nothing, **chosen)
    assert done.returncode == 0, done.stderr
