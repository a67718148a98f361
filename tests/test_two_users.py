"""A person and a service of one group share a run's folder: nothing of one stands in the other's way."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.servers import said

ROOT = Path(__file__).parents[1]
PERSON, SERVICE, GROUP = 60001, 60002, 60010

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users"),
    pytest.mark.cluster,
    pytest.mark.slow,
]

RUN = """
import os, sys
from lmr.cluster.client import Where
from lmr.errors import LmrError
from lmr.scheduler.run import run
from tests.support.toys import workflow
os.umask(0o022)
address, root, calls, fault = sys.argv[1:]
steps = workflow(calls, shards=4, faults={"scaled": {1: fault}})
try:
    report = run([steps[-1]], root, Where(scheduler=address))
    print("made", sum(summary.made for summary in report.summaries))
except LmrError as error:
    print("error:", error)
"""


@pytest.fixture
def place():
    """Code that both may read, a folder of the group's, and a temporary folder for all."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        for part in ("lmr", "tests"):
            shutil.copytree(ROOT / part, top / "code" / part, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in ("tmp", "calls"):
            (top / folder).mkdir()
            (top / folder).chmod(0o1777)
        (top / "shared").mkdir()
        os.chown(top / "shared", PERSON, GROUP)
        (top / "shared").chmod(0o2775)
        yield top


def become(place, user, name):
    """Return how to start a process as a user of the group, and with which environment.

    It may read everything, since this Python may lie in a folder of root's; what it may write is the user's.
    """
    ids = [f"--reuid={user}", f"--regid={GROUP}", "--clear-groups"]
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    prefix = ["setpriv", *ids, *reads, "sh", "-c", 'umask 022; exec "$@"', "sh"]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(place / "code"),
        "TMPDIR": str(place / "tmp"),
        "LMR_CACHE": str(place / "tmp" / name),
        "TOY_WORKER": name,
    }
    return [*prefix, sys.executable], environment


def test_a_person_and_a_service_run_in_one_folder(place):
    service, service_environment = become(place, SERVICE, "service")
    person, person_environment = become(place, PERSON, "person")
    logs, started = place / "logs", []
    logs.mkdir()

    def start(name, *arguments):
        with open(logs / name, "wb") as log:
            process = subprocess.Popen(
                [*service, "-m", *arguments], env=service_environment, cwd="/", stdout=log, stderr=log
            )
        started.append(process)

    root = place / "shared" / "run"
    root.mkdir()
    os.chown(root, PERSON, GROUP)
    root.chmod(0o2775)

    def run(fault):
        command = [*person, "-c", RUN, address, str(root), str(place / "calls"), fault]
        done = subprocess.run(
            command, env=person_environment, cwd="/", capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        start("scheduler", "distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard")
        address = said(logs / "scheduler", r"Scheduler at:\s+(tcp://\S+)")[1]
        plain = ("--nthreads=1", "--resources=CPU=1", "--no-nanny", "--no-dashboard")
        start("worker", "distributed.cli.dask_worker", address, *plain)
        said(logs / "worker", "Registered to")
        told = run("bug")
        assert "shard scaled/00001 failed" in told
        assert [f.name for f in (root / "failures").iterdir()] == ["scaled-00001.txt"]
        assert (root / "failures" / "scaled-00001.txt").stat().st_uid == SERVICE
        # What is made is the service's alone to change: the person's next run is none the worse.
        assert stat.S_IMODE((root / "numbers").stat().st_mode) & 0o022 == 0
        assert run("").split() == ["made", "2"]
        assert not [*(root / "failures").iterdir()]
        left = {path.name for path in root.iterdir()}
        assert left <= {"failures", "numbers", "scaled", "total", "run.json", "course.json"}, left
    finally:
        for process in started:
            process.kill()
            process.wait()
