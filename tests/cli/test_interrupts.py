"""Ctrl-C at any moment: one sentence, code 130, no traceback, and nothing that calls itself a failure."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from lmr.cli.interrupts import STOPPED
from lmr.cluster.client import Where, open_client
from lmr.scheduler import runs
from lmr.scheduler.run import submit
from tests.support.clusters import ROOT, cluster
from tests.support.faults import marks, sleepers
from tests.support.world import arguments, make


@contextmanager
def lmr(log, *words, python=(), **environment):
    """A command in a process group of its own, as a terminal has it."""
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, *python, "-m", "lmr", *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def interrupt(process, log):
    """Press Ctrl-C, and return what the command said; all processes of a terminal get it."""
    os.killpg(process.pid, signal.SIGINT)
    code = process.wait(60)
    told = log.read_text(errors="replace")
    assert "Traceback" not in told, told
    assert "rror" not in told.replace("errors", ""), told
    assert told.rstrip().splitlines()[-1] == STOPPED, told
    assert code == 130
    return told


def until(condition, process, log, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.005)


@pytest.mark.parametrize("module", ["click", "pyarrow.lib", "dask.config", "numpy"])
def test_while_modules_load(tmp_path, module):
    log = tmp_path / "log"
    run = ("run", "retrieval", "--gallery", tmp_path, "--queries", tmp_path, "--out", tmp_path / "run")
    with lmr(log, *run, python=("-X", "importtime")) as process:
        until(lambda: f" {module}\n" in log.read_text(), process, log)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(60)
    told = log.read_text()
    assert "Traceback" not in told
    assert [line for line in told.splitlines() if not line.startswith("import time:")] == [STOPPED]
    assert code == 130


# Where an interrupt is met: code in an `exec`, and callbacks, in which Python swallows what is raised.
MET = {
    "an exec": ("exec('import os, signal; os.kill(os.getpid(), signal.SIGINT)')",),
    "a callback": ("there = Thing()", "seen = weakref.ref(there, interrupt)", "del there", "time.sleep(30)"),
    "an end": ("Ending()", "time.sleep(30)"),
}


@pytest.mark.parametrize("met", MET)
def test_where_it_meets(tmp_path, met):
    lines = "".join(f"    {line}\n" for line in MET[met])
    (tmp_path / "met.py").write_text(
        "import os, signal, time, weakref\n"
        "from lmr.cli import interrupts\n"
        "class Thing:\n"
        "    pass\n"
        "def interrupt(*_):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "class Ending:\n"
        "    __del__ = interrupt\n"
        "interrupts.note()\n"
        f"try:\n{lines}"
        "except KeyboardInterrupt:\n"
        "    interrupts.end()\n"
    )
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-m", "met"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, f"{STOPPED}\n")


def test_while_photos_are_listed(tmp_path):
    log, asked = tmp_path / "log", []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # An S3 server that takes the question and never answers.
        threading.Thread(target=lambda: asked.append(silent.accept()[0]), daemon=True).start()
        place = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        place |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        run = ("run", "retrieval", "--gallery", "s3://photos/a", "--queries", "s3://photos/b")
        with lmr(log, *run, "--out", tmp_path / "run", **place) as process:
            until(lambda: asked, process, log)
            time.sleep(0.2)
            interrupt(process, log)
        asked[0].close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_in_the_middle_of_a_local_run(tmp_path, workers):
    world, out, log = make(tmp_path / "world"), tmp_path / "run", tmp_path / "log"
    with lmr(log, *arguments(world, out, "--workers", workers)) as process:
        until(lambda: [*out.rglob("part-*.parquet")], process, log)
        time.sleep(1)
        interrupt(process, log)
    assert not (out / "failures").exists()
    assert not [*out.rglob("*.tmp")]


@pytest.mark.cluster
@pytest.mark.slow
def test_while_watching(tmp_path):
    log = tmp_path / "log"
    with cluster(tmp_path / "logs", workers=1) as made:
        where = Where(scheduler=made.address)
        name = submit([sleepers(tmp_path, 100, seconds=1)], str(tmp_path / "run"), where).name
        with lmr(log, "watch", "--scheduler", made.address) as process:
            until(lambda: "shards to make" in log.read_text() and marks(tmp_path, "begun"), process, log)
            time.sleep(1)
            told = interrupt(process, log)
        assert f"{name} goes on; to look at it: lmr watch {name} --scheduler {made.address}" in told
        with open_client(where) as client:
            assert runs.find_run(client, name).state == "running"
