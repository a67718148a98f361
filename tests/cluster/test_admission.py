"""Workers that join while a run goes on: who does not pass gets no task, and it is told why."""

import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from functools import partial

import pytest

from lmr.cluster.client import Where, open_client
from lmr.errors import ClusterError, LmrError
from lmr.runtime.finish import raise_if_failed
from lmr.runtime.steps import Whole
from lmr.runtime.tasks import sources_note
from lmr.scheduler import runs
from lmr.scheduler.run import run, submit
from lmr.shipped import source_digest
from tests.support.clusters import ROOT, cluster
from tests.support.costs import cost
from tests.support.faults import gated, marks, sleep_after, sleepers
from tests.support.network import network, why_not
from tests.support.servers import said

pytestmark = pytest.mark.cluster


def submitted(made, step, tmp_path):
    return submit([step], str(tmp_path / "run"), Where(scheduler=made.address), workflow="toy").name


def status(made, name):
    with open_client(Where(scheduler=made.address)) as client:
        return runs.find_run(client, name)


def noticed(made, name, word, seconds=100):
    """Wait until something is noticed of a worker; return the notice."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := [notice for notice in status(made, name).notices if word in notice]:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"{word!r} was not noticed: {status(made, name).notices}")


def settled(made, name):
    with open_client(Where(scheduler=made.address)) as client:
        return raise_if_failed(runs.follow(client, name, lambda counts: None)), runs.find_run(client, name)


def other_source(folder):
    """A copy of lmr with one line more, as a machine that was not updated has it."""
    shutil.copytree(ROOT / "lmr", folder / "lmr", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    with open(folder / "lmr" / "errors.py", "a") as file:
        file.write("\n# an older one\n")
    return str(folder)


def grumble_on(worker):
    if os.environ["TOY_WORKER"] == worker:
        raise LmrError("other weights lie here", got="abc", fix="bring the same weights")


def begun_by(tmp_path, worker):
    return [shard for shard, who in marks(tmp_path, "begun") if who == worker]


def test_late_workers_that_do_not_pass_get_no_task_and_are_told(tmp_path):
    step = replace(sleepers(tmp_path, 4), cost=cost(task_bytes=1e9), check=partial(grumble_on, "grumbler"))
    with cluster(tmp_path / "logs") as made:
        made.worker("w0", TOY_SECONDS="600")
        name = submitted(made, step, tmp_path)
        made.worker("stale", PYTHONPATH=other_source(tmp_path / "stale"))
        made.worker("small", "--memory-limit=0.5GiB")
        made.worker("grumbler")
        # The only good one is lost: the others have all that is left to wait for them.
        made.signal("w0")
        stale = noticed(made, name, "the worker stale")
        small = noticed(made, name, "the worker small")
        grumbler = noticed(made, name, "the worker grumbler")
        time.sleep(2)
        for bad in ("stale", "small", "grumbler"):
            assert begun_by(tmp_path, bad) == []
            assert "no tasks of" in (tmp_path / "logs" / f"{bad}.log").read_text()
        made.worker("good", TOY_SECONDS="0.1")
        _, ended = settled(made, name)
    assert "runs another lmr's source than" in stale
    assert f"{source_digest()} here; fix: install the same lmr there" in stale
    assert "is too small for the step sleep; got: 0.5 GB" in small
    assert "other weights lie here; got: abc; fix: bring the same weights" in grumbler
    assert {stale, small, grumbler} <= set(ended.notices)


def test_bad_workers_at_submission_get_no_task_and_are_told_of(tmp_path):
    step = replace(sleepers(tmp_path, 4), cost=cost(task_bytes=1e9), check=partial(grumble_on, "grumbler"))
    (tmp_path / "bare.py").write_text("import sys\nsys.modules['lmr'] = None\n")
    waited = []
    with cluster(tmp_path / "logs", DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="3s") as made:
        made.worker("stale", PYTHONPATH=other_source(tmp_path / "stale"))
        made.worker("small", "--memory-limit=0.5GiB")
        made.worker("grumbler")
        made.worker("bare", f"--preload={tmp_path}/bare.py")
        made.worker("lost", "--listen-address=tcp://127.0.0.1:0", "--contact-address=tcp://127.0.0.1:9")

        def tell(line):
            # Nobody passes until another one comes.
            waited.append(line)
            made.worker("good")

        where = Where(scheduler=made.address)
        record = submit([step], str(tmp_path / "run"), where, workflow="toy", wait=True, tell=tell)
        _, ended = settled(made, record.name)
    assert len(waited) == 1
    assert re.fullmatch(r"waiting: the (worker|scheduler) .*; got: .*; fix: .*", waited[0])
    told = "\n".join(record.notes)
    for reason in (
        "the worker stale on 127.0.0.1 runs another lmr's source than",
        "the worker small on 127.0.0.1 is too small for the step sleep",
        "the worker grumbler on 127.0.0.1 cannot do its part: other weights lie here",
        "the worker bare on 127.0.0.1 could not be asked",
        "the scheduler cannot reach the worker lost on 127.0.0.1",
    ):
        assert reason in told, told
    assert told.count("fix: ") == told.count("it gets no tasks of this run") == 5
    assert {who for _, who in marks(tmp_path, "begun")} == {"good"}
    # The scheduler judges all workers anew: what it notices is said in the same words.
    assert {note for note in ended.notices if "grumbler" in note} <= set(record.notes)


def test_the_record_of_a_run_keeps_what_was_noticed_for_its_report(tmp_path):
    with cluster(tmp_path / "logs", workers=1) as made:
        step = sleepers(tmp_path, 3, faults=gated(tmp_path / "go", [2]))
        name = submit(
            [step], str(tmp_path / "run"), Where(scheduler=made.address), finalizer=partial(print, "end")
        ).name
        made.worker("stale", PYTHONPATH=other_source(tmp_path / "stale"))
        notice = noticed(made, name, "the worker stale")
        (tmp_path / "go").touch()
        settled(made, name)
    assert notice in json.loads((tmp_path / "run" / "run.json").read_text())["notes"]


def test_a_late_worker_without_lmr_gets_no_task_and_is_named(tmp_path):
    (tmp_path / "bare.py").write_text("import sys\nsys.modules['lmr'] = None\n")
    with cluster(tmp_path / "logs", workers=1) as made:
        name = submitted(made, sleepers(tmp_path, 2, faults=gated(tmp_path / "go", [1])), tmp_path)
        with pytest.raises(RuntimeError, match="No module named 'lmr"):
            made.worker("bare", f"--preload={tmp_path}/bare.py")
        assert "before it said what it runs" in noticed(made, name, "the worker bare")
        (tmp_path / "go").touch()
        settled(made, name)
    assert begun_by(tmp_path, "bare") == []


def test_a_worker_that_finds_what_it_lacked_takes_part(tmp_path):
    """Weights are brought while the run waits: nobody starts the worker again."""
    weights = tmp_path / "weights"
    step = replace(sleepers(tmp_path, 3), check=partial(need, str(weights), "late"))
    preload = tmp_path / "soon.py"
    preload.write_text("import lmr.scheduler.admission as one\none.LOOK_AGAIN_SECONDS = 1\n")
    with cluster(tmp_path / "logs", preload=preload) as made:
        made.worker("w0", TOY_SECONDS="600")
        name = submitted(made, step, tmp_path)
        made.worker("late")
        made.signal("w0")
        assert "no weights" in noticed(made, name, "the worker late")
        weights.touch()
        _, ended = settled(made, name)
    assert any("the worker late on 127.0.0.1 passes now" in notice for notice in ended.notices)
    assert {who for _, who in marks(tmp_path, "ended")} == {"late"}


def need(path, worker):
    if os.environ["TOY_WORKER"] == worker and not os.path.exists(path):
        raise LmrError(f"there are no weights at {path}", got="nothing", fix="bring them")


def test_a_run_that_no_worker_is_admitted_to_is_refused(tmp_path):
    step = replace(sleepers(tmp_path, 2), check=partial(complain, "nowhere"))
    with pytest.raises(ClusterError, match=r"no worker can(.|\n)*no weights nowhere(.|\n)*fix: bring"):
        run([step], str(tmp_path / "run"), Where(workers=1))


def complain(where):
    raise LmrError(f"no weights {where}", got="nothing", fix="bring weights")


def test_every_shard_names_the_source_that_made_it(tmp_path):
    step = sleepers(tmp_path, 2)
    run([step], str(tmp_path / "run"))
    dataset = step.dataset(str(tmp_path / "run"))
    assert [dataset.facts(shard)["source"] for shard in range(2)] == [source_digest()] * 2


def test_shards_of_two_sources_are_told_of():
    assert sources_note(["a", "a", ""]) == ()
    assert sources_note(["a", "b", "a"]) == ("its shards come from 2 sources of lmr: a (2), b (1)",)


def test_a_worker_that_the_scheduler_cannot_reach_is_closed_and_the_run_goes_on(tmp_path):
    with cluster(tmp_path / "logs", workers=1) as made:
        name = submitted(made, sleepers(tmp_path, 3, faults=gated(tmp_path / "go", [2])), tmp_path)
        # It says that it is where nobody listens, as from behind a NAT.
        made.worker("lost", "--listen-address=tcp://127.0.0.1:0", "--contact-address=tcp://127.0.0.1:9")
        notice = noticed(made, name, "the worker lost")
        (tmp_path / "go").touch()
        settled(made, name)
        assert made.processes["lost"].wait(60) is not None
    assert "the scheduler cannot reach the worker lost on 127.0.0.1 at tcp://127.0.0.1:9" in notice
    assert "--contact-address" in notice
    assert "cannot reach" in (tmp_path / "logs" / "lost.log").read_text()
    assert begun_by(tmp_path, "lost") == []


def test_a_worker_that_stands_still_in_its_shard_does_not_hold_up_the_run(tmp_path):
    with cluster(tmp_path / "logs", workers=1) as made:
        made.worker("still")
        name = submitted(made, sleepers(tmp_path, 2, seconds=3), tmp_path)
        while not begun_by(tmp_path, "still"):
            time.sleep(0.05)
        made.signal("still", signal.SIGSTOP)
        settled_within(200, made, name)


def test_a_worker_that_stands_still_before_it_begins_does_not_hold_up_the_run(tmp_path):
    first = sleepers(tmp_path / "first", 1, seconds=6)
    then = replace(
        sleepers(tmp_path / "then", 4, seconds=0.2),
        name="then",
        folder="then",
        make=sleep_after,
        inputs={"first": Whole(first)},
    )
    with cluster(tmp_path / "logs", workers=2) as made:
        name = submitted(made, then, tmp_path)
        while not (begun := marks(tmp_path / "first", "begun")):
            time.sleep(0.05)
        # The other one has nothing to do yet, and has begun nothing when tasks are assigned to it.
        made.signal({"w0": "w1", "w1": "w0"}[begun[0][1]], signal.SIGSTOP)
        settled_within(200, made, name)
    assert {who for _, who in marks(tmp_path / "then", "ended")} == {begun[0][1]}


def settled_within(seconds, made, name):
    """A stopped worker would otherwise be waited for until Dask gives it up, after five minutes."""
    deadline = time.monotonic() + seconds
    while status(made, name).active:
        assert time.monotonic() < deadline, "the run is held up"
        time.sleep(0.2)
    settled(made, name)


@pytest.mark.hosts
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_worker_behind_an_address_of_its_own_is_closed(tmp_path):
    """As a container without the host's network: it reaches the others, and nobody reaches it."""
    dask = (sys.executable, "-m", "dask")
    with network("sched", "good", "boxed") as net:
        environment = {"PYTHONPATH": str(ROOT)}
        net["sched"].start(
            (*dask, "scheduler", "--host", "10.77.0.1", "--port", "8786"), tmp_path / "sched.log", environment
        )
        said(tmp_path / "sched.log", "Scheduler at")
        address = "tcp://10.77.0.1:8786"
        plain = ("worker", address, "--nthreads", "1", "--resources", "CPU=1", "--no-nanny", "--no-dashboard")

        def start(host, *options):
            log = tmp_path / f"{host}.log"
            environment["TOY_WORKER"] = host
            process = net[host].start((*dask, *plain, "--name", host, *options), log, environment)
            said(log, "Registered to")
            return process

        start("good", "--host", net["good"].address)
        code = (
            "import sys; from pathlib import Path; from lmr.cluster.client import Where\n"
            "from lmr.scheduler.run import submit; from tests.support.faults import sleepers\n"
            f"p = Path({str(tmp_path)!r})\n"
            f"print(submit([sleepers(p, 12, seconds=1)], str(p / 'run'), Where(scheduler={address!r})).name)"
        )
        net["sched"].run((sys.executable, "-c", code), environment)
        net.ip("-n", net["boxed"].namespace, "addr", "add", "172.31.0.9/32", "dev", "lo")
        boxed = start("boxed", "--host", "172.31.0.9")
        assert boxed.wait(90) is not None
        said(tmp_path / "boxed.log", r"cannot reach the worker boxed on 172\.31\.0\.9 at tcp://172")
        deadline = time.monotonic() + 90
        while len(marks(tmp_path, "ended")) < 12 and time.monotonic() < deadline:
            time.sleep(0.2)
    assert {who for _, who in marks(tmp_path, "ended")} == {"good"}
    assert len({shard for shard, _ in marks(tmp_path, "ended")}) == 12


@pytest.mark.hosts
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("when", ["before it joins", "after its shards are made"])
def test_a_worker_that_its_peers_cannot_reach_is_closed(tmp_path, when):
    """The scheduler reaches both workers; between the two nothing passes."""
    dask = (sys.executable, "-m", "dask")
    with network("sched", "good", "apart") as net:
        environment = {"PYTHONPATH": str(ROOT)}
        net["sched"].start(
            (*dask, "scheduler", "--host", "10.77.0.1", "--port", "8786"), tmp_path / "sched.log", environment
        )
        said(tmp_path / "sched.log", "Scheduler at")
        address = "tcp://10.77.0.1:8786"
        plain = ("worker", address, "--nthreads", "1", "--resources", "CPU=1", "--no-nanny", "--no-dashboard")

        def start(host):
            log, own = tmp_path / f"{host}.log", {**environment, "TOY_WORKER": host}
            options = ("--name", host, "--host", net[host].address)
            process = net[host].start((*dask, *plain, *options), log, own)
            said(log, "Registered to")
            return process

        def part():
            net.ip("-n", net["apart"].namespace, "route", "add", "blackhole", f"{net['good'].address}/32")

        start("good")
        if when == "before it joins":
            part()
        else:
            apart = start("apart")
        code = (
            "import sys; from pathlib import Path; from dataclasses import replace\n"
            "from lmr.cluster.client import Where; from lmr.runtime.steps import Whole\n"
            "from lmr.scheduler.run import submit; from tests.support.faults import sleep_after, sleepers\n"
            f"p = Path({str(tmp_path)!r})\n"
            "first = sleepers(p, 12, seconds=1)\n"
            "then = replace(sleepers(p / 'then', 1), name='then', folder='then', make=sleep_after, "
            "inputs={'first': Whole(first)})\n"
            f"print(submit([then], str(p / 'run'), Where(scheduler={address!r})).name)"
        )
        net["sched"].run((sys.executable, "-c", code), environment)
        if when == "before it joins":
            apart = start("apart")
        else:
            while not {"good", "apart"} <= {who for _, who in marks(tmp_path, "ended")}:
                time.sleep(0.05)
            part()
        deadline = time.monotonic() + 150
        while not marks(tmp_path / "then", "ended"):
            assert time.monotonic() < deadline, "the run stands still"
            time.sleep(0.2)
        if when == "before it joins":
            assert apart.wait(60) is not None
            told = said(tmp_path / "apart.log", r"lmr: (.* cannot reach the worker apart on .*)")[1]
            assert told.startswith(
                "the worker good on 10.77.0.2 cannot reach the worker apart on 10.77.0.3 at"
            )
            assert {who for _, who in marks(tmp_path, "ended")} == {"good"}
    assert len({shard for shard, _ in marks(tmp_path, "ended")}) == 12
