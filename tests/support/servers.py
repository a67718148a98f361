"""Schedulers and workers as processes of their own, started by the commands that users type."""

import os
import re
import subprocess
import time
from contextlib import contextmanager

from lmr.cluster.commands import scheduler_command


@contextmanager
def started(command, log, *, prefix=(), cwd=None):
    """Start a command in a process group of its own; on leaving, all of it is gone."""
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*prefix, *command.arguments],
            env={**os.environ, **command.environment},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def said(log, pattern, seconds=180):
    """Wait until a log says something; return the match."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if match := re.search(pattern, log.read_text(errors="replace")):
            return match
        time.sleep(0.1)
    raise AssertionError(f"{pattern!r} is not in the log:\n{log.read_text(errors='replace')}")


@contextmanager
def scheduler(folder, tls=None, *, host="127.0.0.1", **options):
    """Run a scheduler on a free port of loopback; yields its address."""
    log = folder / "scheduler.log"
    command = scheduler_command(tls=tls and str(tls), host=host, port=0, dashboard_port=0, **options)
    with started(command, log):
        yield said(log, r"Scheduler at:\s+(\S+)")[1]
