"""A scheduler and workers as processes of their own, as a cluster has them: for submitting and leaving."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Cluster:
    """`dask scheduler` and `dask worker` on loopback; workers come and go."""

    def __init__(self, folder, preload=None, **environment):
        self.folder, self.processes = Path(folder), {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.address = self._scheduler(*([f"--preload={preload}"] if preload else []), **environment)

    def _start(self, name, *command, **environment):
        log = open(self.folder / f"{name}.log", "w")  # noqa: SIM115
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def _scheduler(self, *options, **environment):
        self._start(
            "scheduler",
            "distributed.cli.dask_scheduler",
            "--host=127.0.0.1",
            "--port=0",
            "--dashboard-address=127.0.0.1:0",
            *options,
            **environment,
        )
        return self._said("scheduler", r"Scheduler at:\s+(tcp://\S+)")

    def worker(self, name, *options, **environment):
        """Start a worker without a nanny, unless options say otherwise; return when it has joined."""
        plain = () if "--nanny" in options else ("--no-nanny",)
        self._start(
            name,
            "distributed.cli.dask_worker",
            self.address,
            f"--name={name}",
            "--no-dashboard",
            "--death-timeout=120",
            *_unless(options, "--nthreads", "1"),
            *_unless(options, "--resources", "CPU=1"),
            *plain,
            *options,
            TOY_WORKER=name,
            **environment,
        )
        self._said(name, r"Registered to:\s+(\S+)")

    def _said(self, name, pattern):
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline:
            if found := re.search(pattern, (self.folder / f"{name}.log").read_text()):
                return found[1]
            if self.processes[name].poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"{name} did not start: {(self.folder / f'{name}.log').read_text()}")

    def has_ended(self, name):
        """Whether a process is gone."""
        return self.processes[name].poll() is not None

    def signal(self, name, number=signal.SIGKILL):
        """Send a process a signal."""
        self.processes[name].send_signal(number)

    def close(self):
        """End all that was started."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


def _unless(options, name, value):
    return () if any(option.startswith(name) for option in options) else (f"{name}={value}",)


@contextmanager
def cluster(folder, workers=0, preload=None, **environment):
    """A scheduler with some workers, ended at the end; `preload` is a file that the scheduler loads first."""
    made = Cluster(folder, preload, **environment)
    try:
        for number in range(workers):
            made.worker(f"w{number}")
        yield made
    finally:
        made.close()
