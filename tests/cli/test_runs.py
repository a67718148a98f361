"""`lmr watch`, `status`, `cancel`: which run is meant, what is said of it, and how it ends."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from typer.testing import CliRunner

from lmr.cli.main import app
from lmr.cluster.client import Where
from lmr.errors import ClusterError, LmrError
from lmr.scheduler.run import submit
from tests.cluster.test_admission import grumble_on
from tests.support.clusters import cluster
from tests.support.faults import gated, sleepers
from tests.support.toys import workflow
from tests.support.world import make

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster"), workers=2) as made:
        yield made


def lmr(made, *words):
    """Run a command on the cluster; return what it printed, or raise what it raised."""
    done = CliRunner().invoke(app, [*map(str, words), "--scheduler", made.address])
    if isinstance(done.exception, LmrError):
        done.exception.printed = done.output
        raise done.exception
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def started(made, tmp_path, shards=6, **more):
    slow = dict.fromkeys(range(shards), "slow")
    steps = workflow(tmp_path / "calls", shards=shards, faults={"numbers": slow})
    return submit(
        [steps[-1]], str(tmp_path / "run"), Where(scheduler=made.address), workflow="toy", **more
    ).name


def test_a_run_is_named_by_its_beginning_its_folder_or_not_at_all(made, tmp_path):
    first = started(made, tmp_path / "one", shards=2)
    second = started(made, tmp_path / "two", shards=2)
    assert first in lmr(made, "watch", first)
    lmr(made, "watch", second)
    assert first in lmr(made, "status", first)
    assert f"{first} took" in lmr(made, "status", tmp_path / "one" / "run")
    assert f"{first} took" in lmr(made, "status", f"{tmp_path}/one/run/")
    assert f"{second} took" in lmr(made, "status")
    assert f"{second} took" in lmr(made, "watch")
    assert f"{second} took" in lmr(made, "status", second[:-1])
    with pytest.raises(ClusterError, match=rf"several runs begin with toy\ngot: (.*, )?{second}, {first}"):
        lmr(made, "status", "toy")
    with pytest.raises(ClusterError, match=rf"knows no run nowhere\ngot: it knows .*{first}"):
        lmr(made, "status", "nowhere")


def test_what_is_said_while_a_run_goes_on_and_when_it_was_cancelled(made, tmp_path):
    name = started(made, tmp_path, shards=30)
    deadline = time.monotonic() + 60
    while " left" not in (said := lmr(made, "status", name)) or "not known" in said:
        assert time.monotonic() < deadline, said
        time.sleep(0.3)
    rows = {
        row.split("│")[1].strip(): [c.strip() for c in row.split("│")]
        for row in said.splitlines()
        if "│" in row
    }
    assert rows["total"][4:6] == ["", "waits"]
    assert rows["numbers"][4] in ("1", "2")
    assert re.fullmatch(r"\d+ s", rows["numbers"][5])
    # Thirty shards of a second on two workers; of the other steps nothing is known yet.
    left = re.search(r"(more than|about) (\d+) s left", said)
    assert left, said
    assert 3 <= int(left[2]) <= 90
    assert re.search(
        rf"{name} is cancelled; \d+ of 61 shards were made; run the same", lmr(made, "cancel", name)
    )
    said = lmr(made, "status", name)
    assert f"{name}: cancelled" in said
    assert f"{name} was cancelled; run the same command again to go on" in " ".join(said.split())
    with pytest.raises(
        ClusterError, match=rf"{name} was cancelled\ngot: \d+ of 61 shards were made\nfix: run the"
    ):
        lmr(made, "watch", name)


def test_a_run_is_cancelled_without_its_name_when_it_is_the_only_one(made, tmp_path):
    with pytest.raises(ClusterError, match="no run goes on"):
        lmr(made, "cancel")
    one = started(made, tmp_path / "one", shards=30)
    two = started(made, tmp_path / "two", shards=30)
    with pytest.raises(ClusterError, match=rf"several runs go on\ngot: {two}, {one}\nfix: name the one"):
        lmr(made, "cancel")
    assert f"{two} is cancelled" in lmr(made, "cancel", tmp_path / "two" / "run")
    assert f"{one} is cancelled" in lmr(made, "cancel")
    # Once more: nothing is stopped, and nothing is said to be.
    assert f"{one} has ended before: it is cancelled" in lmr(made, "cancel", one)


def test_a_folder_is_itself_though_names_begin_like_it(made, tmp_path, monkeypatch):
    name = started(made, tmp_path, shards=1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").rename(tmp_path / "toy")
    lmr(made, "watch", name)
    other = submit_to(made, tmp_path / "toy")
    lmr(made, "watch", other)
    assert f"{other} took" in lmr(made, "status", "toy")


def submit_to(made, root):
    steps = workflow(root.parent / "calls", shards=2)
    where = Where(scheduler=made.address)
    return submit([steps[-1]], str(root), where, workflow="toy", finalizer=partial(print, "end")).name


def test_who_watches_hears_at_once_of_workers_that_get_no_tasks(made, tmp_path):
    """A run whose only good workers are gone stands still: whoever looks on is told why."""
    gate = gated(tmp_path / "go", [1])
    step = replace(sleepers(tmp_path, 2, faults=gate), check=partial(grumble_on, "late"))
    name = submit([step], str(tmp_path / "run"), Where(scheduler=made.address), workflow="toy").name
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(lmr, made, "watch", name)
        made.worker("late")
        while "the worker late" not in lmr(made, "status", name):
            time.sleep(0.1)
        # Whoever watches asks twice a second.
        time.sleep(2)
        (tmp_path / "go").touch()
        said = watching.result(120)
    made.signal("late")
    lines = said.splitlines()
    told = [number for number, line in enumerate(lines) if "the worker late" in line]
    assert len(told) == 1, said
    assert told[0] < next(number for number, line in enumerate(lines) if "sleep: done" in line)


def test_a_log_of_a_watched_run_has_lines(made, tmp_path):
    name = started(made, tmp_path, shards=4)
    said = lmr(made, "watch", name)
    assert re.search(r"\d\d:\d\d:\d\d 9 shards to make, in 3 steps", said)
    assert re.search(r"\d\d:\d\d:\d\d numbers: done, 4 shards in \d+ s", said)
    assert re.search(r"\d\d:\d\d:\d\d total: done, 1 shard in \d+ s", said)


def put_no_results(folder):
    (folder / "run" / "datasets.json").write_text("{")


def test_results_that_cannot_be_read_from_here_are_told_as_such(made, tmp_path):
    name = started(made, tmp_path, shards=1, finalizer=partial(put_no_results, tmp_path))
    assert "its results cannot be read from here" in lmr(made, "watch", name)


@pytest.mark.timeout(600)
def test_watch_and_status_end_as_run_does(made, tmp_path):
    world, out = make(tmp_path / "world"), tmp_path / "run"
    photos = ("--gallery", world / "gallery", "--queries", world / "queries", "--out", out)
    chosen = ("--solution", world / "solution.csv", "--set", "ingest.photos_per_shard=20")
    said = lmr(made, "submit", "retrieval", *photos, *chosen)
    (hint,) = re.findall(r"to look at it: lmr (.*)", said)
    assert hint.endswith(f"--scheduler {made.address}")
    for told in (CliRunner().invoke(app, hint.split()).output, lmr(made, "status")):
        assert "photo(s) could not be used" in told
        assert "mAP@100" in told
        assert f"submission {out}/submission.csv" in told
        assert f"report     {out}/report/index.html" in told
    plan = CliRunner().invoke(
        app,
        [
            "run",
            "retrieval",
            *map(str, (*photos, *chosen)),
            "--plan",
            "--workers",
            "2",
            "--set",
            "verify.seed=5",
        ],
    )
    assert "process(es) of this machine, by what shards of the last run took" in " ".join(
        plan.output.split()
    ), plan.output
    fresh = CliRunner().invoke(
        app, ["run", "retrieval", *map(str, photos[:-1]), str(tmp_path / "new"), "--plan", "--workers", "2"]
    )
    assert "time: not known before the first shards" in fresh.output
