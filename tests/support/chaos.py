"""Rounds of a small run on a cluster to which faults happen at random moments; a seed repeats the draws.

A scheduler, two hosts of workers, a client and an S3 server (moto's, behind a proxy on which credentials
expire), each in a network namespace of its own. What ends is started again, as systemd does it. A round is
good when its client ends with the undisturbed run's result, byte for byte, or with one clear message after
which the same command does.
"""

import os
import random
import shutil
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from lmr.shipped import source_digest
from tests.support.network import network, why_not
from tests.support.servers import said
from tests.support.toys import calls_of, workflow

__all__ = ["FAULTS", "Round", "chaos", "expected_result", "play"]

ROOT = Path(__file__).parents[2]
SHARDS = 24
SECONDS_PER_TRY = 240
TRIES = 4
FAULTS = (
    "kill a worker",
    "kill a nanny",
    "kill the scheduler",
    "kill the client",
    "cut a host off",
    "cut the storage off",
    "cut the client off",
    "a worker of another source joins",
    "an unreachable worker joins",
    "credentials expire and are renewed",
    "credentials expire and are renewed late",
)


@dataclass
class Round:
    """What happened in a round.

    Attributes
    ----------
    number
        Its number.
    faults
        What was done to the cluster, each with the second at which it was done.
    messages
        The first lines of what the client said in each try that did not end well.
    good
        Whether the last try ended with the undisturbed run's result and nothing else was wrong.
    wrong
        What was wrong; empty for a good round.
    seconds
        How long it took, resuming included.
    begun
        How many shards were begun, of the `2 * SHARDS + 1` that there are.
    """

    number: int
    faults: list = field(default_factory=list)
    messages: list = field(default_factory=list)
    good: bool = False
    wrong: str = ""
    seconds: float = 0.0
    begun: int = 0

    def __str__(self):
        did = ", ".join(f"{at:.1f} s {what}" for at, what in self.faults) or "no fault came in time"
        told = "; ".join(f"said {message!r}, resumed" for message in self.messages) or "went through"
        verdict = "good" if self.good else f"BAD: {self.wrong}"
        return (
            f"round {self.number}: {verdict}; {did}; {told}; "
            f"{self.begun} shards begun of {2 * SHARDS + 1}; {self.seconds:.0f} s"
        )


def steps_of(calls):
    """The steps of a round's run: shards of a second, twice, and their sum."""
    slow = dict.fromkeys(range(SHARDS), "slow")
    return workflow(calls, shards=SHARDS, faults={"numbers": slow, "scaled": slow})


def write_result(root, dataset, last):
    """Write all that a run has made into one file."""
    from lmr import storage

    tables = [*map(dataset.read, range(dataset.shards)), last.read(0)]
    lines = [str(rows.to_pydict()) for rows in tables]
    storage.put(storage.join(root, "result.txt"), "\n".join(lines).encode())


def finalizer_of(steps, root):
    return partial(write_result, root, steps[1].dataset(root), steps[2].dataset(root))


def expected_result(folder):
    """Return what an undisturbed run makes, in this process."""
    from lmr.scheduler.run import run

    steps, root = workflow(folder / "calls", shards=SHARDS), str(folder / "run")
    run([steps[-1]], root, finalizer=finalizer_of(steps, root))
    return (folder / "run" / "result.txt").read_bytes()


class Chaos:
    """The cluster, and what can happen to it."""

    def __init__(self, net, folder):
        self.net, self.folder = net, folder
        self.address = f"tcp://{net['sched'].address}:8786"
        self.processes, self.odd, self.mends = {}, [], []
        self.key = 0
        (folder / "expired").write_text("")
        self.environment = {
            "PYTHONPATH": str(ROOT),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{net['s3'].address}:9000",
            "LMR_STORAGE_PATIENCE": "8",
            # How soon a host that was cut off is given up (Dask's default is 30 s).
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "12s",
        }
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ.pop(name, None)
        self.renew()
        storage = [sys.executable, "-m", "tests.support.chaos", "storage", net["s3"].address, str(folder)]
        net["s3"].start(storage, folder / "s3.log", self.environment)
        said(folder / "s3.log", "ready")
        self.revive()
        said(folder / "sched.log", "Scheduler at")
        for name in ("w1", "w2"):
            said(folder / f"{name}.log", "Registered to")

    # What is started again when it ends.

    def revive(self):
        """Start again what has ended, as systemd does."""
        lmr = [sys.executable, "-m", "lmr", "cluster"]
        plain = [self.address, "--unprotected", "--workers", "2", "--memory-per-worker", "1GB", "--name"]
        wanted = {"sched": [*lmr, "scheduler", "--host", self.net["sched"].address, "--unprotected"]}
        wanted |= {name: [*lmr, "worker", *plain, name] for name in ("w1", "w2")}
        for name, command in wanted.items():
            known = self.processes.get(name)
            if known is None or known.poll() is not None:
                cache = {"LMR_CACHE": str(self.folder / f"cache-{name}"), "TOY_WORKER": name}
                log = self.folder / f"{name}.log"
                self.processes[name] = self.net[name].start(command, log, {**self.environment, **cache})

    def renew(self):
        """Give everyone fresh credentials."""
        self.key += 1
        text = f"[default]\naws_access_key_id = key{self.key}\naws_secret_access_key = secret\n"
        fresh = self.folder / "credentials.fresh"
        fresh.write_text(text)
        fresh.replace(self.folder / "credentials")

    def expire(self):
        """Let the credentials that are in use expire."""
        (self.folder / "expired").write_text(f"key{self.key}")

    # What can happen.

    def strike(self, fault, rng, client):
        """Let a fault happen; what mends it is put off by a few seconds."""
        host = rng.choice(("w1", "w2"))
        soon = time.monotonic() + rng.uniform(1, 12)
        if fault == "kill a worker":
            _kill(p for p in self._in(host) if "spawn_main" in _line(p))
        elif fault == "kill a nanny":
            _kill(p for p in self._in(host) if "lmr.cluster.entry" in _line(p))
        elif fault == "kill the scheduler":
            _kill(p for p in self._in("sched") if "lmr.cluster.entry" in _line(p))
        elif fault == "kill the client":
            _kill(p for p in self._in("laptop") if "tests.support.chaos" in _line(p))
        elif fault.startswith("cut"):
            name = {"cut a host off": host, "cut the storage off": "s3"}.get(fault, "laptop")
            self.net[name].cut()
            self.mends.append((soon, self.net[name].mend))
        elif fault == "a worker of another source joins":
            self._join("odd", {"PYTHONPATH": self._other_source()})
        elif fault == "an unreachable worker joins":
            self._join("odd", {}, "--contact-address", "10.77.0.99:7777")
        else:
            self.expire()
            if fault.endswith("late"):
                self.mends.append((soon, self.renew))
            else:
                self.renew()

    def mend(self, everything=False):
        """Mend what is due."""
        for due, how in [m for m in self.mends if everything or m[0] <= time.monotonic()]:
            how()
            self.mends.remove((due, how))

    def quiet(self):
        """End what should not be there, and wait until the workers are all there again."""
        self.mend(everything=True)
        _kill(self._in("odd"))
        self.odd.clear()
        waiting = self.net["laptop"].start(
            [sys.executable, "-m", "tests.support.chaos", "wait", self.address],
            self.folder / "wait.log",
            self.environment,
        )
        while waiting.poll() is None:
            self.revive()
            time.sleep(0.2)

    def _join(self, name, environment, *options):
        options = [self.address, "--unprotected", "--workers", "1", "--memory-per-worker", "1GB", *options]
        command = [sys.executable, "-m", "lmr", "cluster", "worker", *options, "--name", name]
        own = {"LMR_CACHE": str(self.folder / "cache-odd"), "TOY_WORKER": "odd"}
        log = self.folder / "odd.log"
        self.odd.append(self.net[name].start(command, log, {**self.environment, **own, **environment}))

    def _other_source(self):
        folder = self.folder / "other"
        if not folder.exists():
            for part in ("lmr", "tests"):
                shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            with open(folder / "lmr" / "errors.py", "a") as file:
                file.write("\n# an older one\n")
        return str(folder)

    def _in(self, host):
        for pid in self.net[host].pids():
            with suppress(psutil.Error):
                yield psutil.Process(pid)

    # Rounds.

    def client(self, root, calls, log):
        """Start the client of a round."""
        command = [sys.executable, "-m", "tests.support.chaos", "client", root, self.address, str(calls)]
        return self.net["laptop"].start(command, log, self.environment)


def play(cluster, number, seed, expected):
    """Play a round; return what happened."""
    rng = random.Random(f"{seed}-{number}")
    played, began = Round(number), time.monotonic()
    root, calls = f"s3://photos/round-{seed}-{number}", cluster.folder / f"calls-{number}"
    drawn = [rng.choice(FAULTS) for _ in range(rng.randint(1, 4))]
    # Whoever joins needs some seconds to start.
    due = sorted((rng.uniform(0, 2 if what.endswith("joins") else 12), what) for what in drawn)
    started = None
    for attempt in range(TRIES):
        log = cluster.folder / f"client-{number}-{attempt}.log"
        client = cluster.client(root, calls, log)
        deadline = time.monotonic() + SECONDS_PER_TRY
        while client.poll() is None:
            if time.monotonic() > deadline:
                played.wrong = f"the client stood still: {_last(log)}"
                _kill(cluster._in("laptop"))
                client.wait()
                break
            if started is None and (calls_of(calls, "numbers") or (calls / "numbers").exists()):
                started = time.monotonic()
            while started is not None and due and time.monotonic() - started > due[0][0]:
                played.faults.append((time.monotonic() - started, due[0][1]))
                cluster.strike(due.pop(0)[1], rng, client)
            cluster.mend()
            cluster.revive()
            time.sleep(0.1)
        if played.wrong:
            break
        told = log.read_text(errors="replace")
        if client.returncode == 0:
            same, pure = f"result {expected.hex()}" in told, f"sources {source_digest()}\n" in told
            played.good = same and pure
            played.wrong = "" if played.good else f"another result, or another source: {_last(log)[-300:]}"
            break
        killed = client.returncode < 0
        if not killed and ("Traceback" in told or "error: " not in told):
            played.wrong = f"no clear message: {told[-1500:]}"
            break
        first = told.partition("error: ")[2].splitlines()[:1]
        played.messages.append("(killed)" if killed else first[0][:150])
        if not killed:
            # What the message asks for: what is broken is mended, and who does not belong there is ended.
            cluster.quiet()
    else:
        played.wrong = f"not done in {TRIES} tries"
    cluster.quiet()
    played.begun = sum(len(calls_of(calls, step)) for step in ("numbers", "scaled", "total"))
    played.seconds = time.monotonic() - began
    return played


@contextmanager
def chaos(folder):
    """A cluster for rounds; all its processes and namespaces are gone at the end."""
    with network("sched", "s3", "w1", "w2", "odd", "laptop") as net:
        yield Chaos(net, folder)


def _line(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(processes):
    for process in list(processes):
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


def _last(log):
    return log.read_text(errors="replace")[-1500:]


# What runs in processes of their own.


def _client(root, address, calls):
    """Run, or watch the run that goes on, as its message says; print the result."""
    from lmr import storage
    from lmr.cluster.client import Where, open_client
    from lmr.errors import ClusterError, LmrError
    from lmr.runtime.finish import raise_if_failed
    from lmr.scheduler import runs
    from lmr.scheduler.run import run

    steps, where = steps_of(calls), Where(scheduler=address)
    try:
        try:
            run([steps[-1]], root, where, workflow="chaos", finalizer=finalizer_of(steps, root))
        except ClusterError as error:
            if "goes on as " not in error.what:
                raise
            with open_client(where) as client:
                name = error.what.rsplit(" ", 1)[-1]
                raise_if_failed(runs.follow(client, name, lambda *_: None))
        datasets = [step.dataset(root) for step in steps]
        sources = {d.facts(shard)["source"] for d in datasets for shard in range(d.shards)}
        print("sources", *sorted(sources))
        print(f"result {storage.read(storage.join(root, 'result.txt')).hex()}", flush=True)
    except LmrError as error:
        print(f"error: {error}", flush=True)
        sys.exit(1)


def _rounds(folder, count, first, seed):
    """Play rounds, and print a line for each."""
    if reason := why_not():
        sys.exit(reason)
    folder, count, first = Path(folder).absolute(), int(count), int(first)
    folder.mkdir(parents=True, exist_ok=True)
    expected = expected_result(folder / "alone")
    bad = 0
    with chaos(folder) as cluster:
        for number in range(first, first + count):
            played = play(cluster, number, seed, expected)
            bad += not played.good
            print(played, flush=True)
    print(f"{count - bad} of {count} rounds were good, seed {seed}")
    sys.exit(1 if bad else 0)


def _wait(address):
    """Wait until two workers on each of two hosts are there."""
    from distributed import Client

    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with suppress(OSError, TimeoutError), Client(address, timeout=5) as client:
            client.wait_for_workers(4, timeout=90)
            return


def _storage(host, folder):
    """Serve S3 by moto, behind a proxy on which the keys in the file `expired` have expired."""
    import boto3
    from moto.server import ThreadedMotoServer

    from tests.support.faulty import FaultyProxy

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    target = server.get_host_and_port()
    local = {"endpoint_url": f"http://{target[0]}:{target[1]}", "region_name": "us-east-1"}
    boto3.client("s3", **local).create_bucket(Bucket="photos")
    with FaultyProxy(target, host=host, port=9000) as proxy:
        print("ready", flush=True)
        while True:
            proxy.expired_keys = set(Path(folder, "expired").read_text().split())
            proxy.requests.clear()
            time.sleep(0.1)


if __name__ == "__main__":
    {"client": _client, "rounds": _rounds, "storage": _storage, "wait": _wait}[sys.argv[1]](*sys.argv[2:])
