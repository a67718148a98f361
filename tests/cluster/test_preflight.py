"""What is looked at before the first task, on a cluster of processes that falls short."""

import re
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmr.cluster import preflight as under_test
from lmr.cluster.client import Where, open_client, workers_of
from lmr.cluster.preflight import preflight
from lmr.errors import ClusterError, LmrError, StorageError
from lmr.runtime.graph import make_plan
from tests.support.clusters import cluster
from tests.support.costs import cost
from tests.support.faults import sleepers

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One CPU worker with 2 GiB, one "GPU" worker."""
    with cluster(tmp_path_factory.mktemp("logs")) as made:
        made.worker("small", "--nanny", "--memory-limit=2GiB")
        made.worker("gpu", "--resources=GPU=1", "--nthreads=2")
        yield made


@pytest.fixture(scope="module")
def client(made):
    with open_client(Where(scheduler=made.address)) as client:
        yield client


def look(client, tmp_path, step=None, **options):
    root = str(tmp_path / "run")
    return preflight(client, make_plan([step or sleepers(tmp_path, 2)], root), **options)


def complain(word):
    raise LmrError(f"no {word} here", got="nothing", fix=f"bring {word}")


def leave_name(folder):
    import os

    Path(folder, os.environ["TOY_WORKER"]).touch()


def test_a_good_cluster_passes_and_leaves_nothing(client, tmp_path):
    passed = look(client, tmp_path)
    assert passed.notes == (
        "workers with several threads, of which lmr uses one: 1; for all cores start them by "
        "lmr cluster worker, or dask worker --nthreads 1 --nworkers N",
    )
    assert passed.declared == {"CPU", "GPU"}
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("name", ["python", "dask", "lmr's source", "numpy", "pyarrow", "faiss-cpu"])
def test_other_versions_are_refused_and_both_are_named(client, tmp_path, monkeypatch, name):
    mine = under_test.facts()
    monkeypatch.setattr(under_test, "facts", lambda: {**mine, name: "1.2.3"})
    monkeypatch.setattr(under_test, "_ask_scheduler", lambda client: {**mine, name: "1.2.3"})
    there = mine[name].rsplit(".", 1)[0] if name == "python" else mine[name]
    here = "1.2" if name == "python" else "1.2.3"
    with pytest.raises(
        ClusterError, match=f"the worker .* runs another {name} .*\ngot: {there} there, {here} here"
    ):
        look(client, tmp_path)


def test_a_scheduler_of_another_lmr_is_refused(client, tmp_path, monkeypatch):
    monkeypatch.setattr(under_test, "_ask_scheduler", lambda client: {**under_test.facts(), "lmr": "9"})
    with pytest.raises(ClusterError, match=r"the scheduler runs another lmr than .*\ngot: 9 there"):
        look(client, tmp_path)


def test_a_worker_without_lmr_is_named(made, client, tmp_path):
    (tmp_path / "bare.py").write_text("import sys\nsys.modules['lmr'] = None\n")
    made.worker("bare", f"--preload={tmp_path}/bare.py", "--resources=BARE=1")
    reason = r"the worker bare on .* could not be asked(\n|; )got: .*ModuleNotFoundError"
    with pytest.raises(ClusterError, match=reason):
        look(client, tmp_path, replace(sleepers(tmp_path, 2), resources={"BARE": 1}))
    # Of a step that others can do, it is left out, and nothing is asked for that it alone declares.
    passed = look(client, tmp_path)
    assert any(re.match(reason, note) for note in passed.notes)
    made.signal("bare")
    until(lambda: len(workers_of(client)) == 2)


def test_workers_are_seen_whatever_the_client_asks_meanwhile(client, tmp_path, monkeypatch):
    ask = client._update_scheduler_info

    async def overtaken(n_workers=0):
        await ask(n_workers=n_workers)
        await ask()  # as Dask's client does every two seconds: it asks for no workers

    monkeypatch.setattr(client, "_update_scheduler_info", overtaken)
    look(client, tmp_path)


def test_a_missing_worker_is_named_or_waited_for(made, client, tmp_path):
    step = replace(sleepers(tmp_path, 2), resources={"TPU": 1})
    with pytest.raises(
        ClusterError, match="sleep needs a worker with a TPU\ngot: 2 workers that declare CPU, GPU"
    ):
        look(client, tmp_path, step)
    told = []
    late = threading.Thread(target=lambda: (until(lambda: told), made.worker("late", "--resources=TPU=1")))
    late.start()
    look(client, tmp_path, step, wait=True, tell=told.append)
    late.join()
    made.signal("late")
    # Until the scheduler has noticed, others would be told that it cannot be reached.
    until(lambda: len(workers_of(client)) == 2)
    assert told == ["waiting: the step sleep needs a worker with a TPU"]


def test_a_worker_that_leaves_while_it_is_asked_stands_in_nobodys_way(made, client, tmp_path, monkeypatch):
    made.worker("leaver")
    ask = client.run

    def leaving(*args, **options):
        made.signal("leaver")
        return ask(*args, **options)

    monkeypatch.setattr(client, "run", leaving)
    look(client, tmp_path)
    until(lambda: len(workers_of(client)) == 2)


def test_a_worker_too_small_for_a_step_is_named(client, tmp_path):
    step = replace(sleepers(tmp_path, 2), cost=cost(task_bytes=2.6e9))
    with pytest.raises(
        ClusterError,
        match=r"the worker small on .* is too small for the step sleep\ngot: 2\.1 GB; .* 3\.",
    ):
        look(client, tmp_path, step)
    # The other worker has room enough, and the step is for it alone.
    look(client, tmp_path, replace(step, resources={"GPU": 1}))


def test_what_a_step_needs_is_looked_for_on_its_own_workers_only(client, tmp_path):
    for resource, worker in (("CPU", "small"), ("GPU", "gpu")):
        folder = tmp_path / resource
        folder.mkdir()
        step = replace(sleepers(tmp_path, 2), resources={resource: 1}, check=partial(leave_name, str(folder)))
        look(client, tmp_path, step)
        assert [path.name for path in folder.iterdir()] == [worker]
    with pytest.raises(
        ClusterError,
        match=r"the worker .* cannot do its part: no weights here\n(.|\n)*fix: bring weights",
    ):
        look(client, tmp_path, replace(sleepers(tmp_path, 2), check=partial(complain, "weights")))


def test_storage_that_workers_cannot_write_is_refused(client, tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot write .*preflight-"):
        look(client, tmp_path)


def test_what_cannot_be_removed_is_a_note_and_hides_no_error(client, tmp_path, monkeypatch):
    def refused(url):
        raise StorageError(f"cannot delete {url}", got="PermissionError: of another user")

    monkeypatch.setattr(under_test.storage, "delete", refused)
    assert any("could not be removed: PermissionError" in note for note in look(client, tmp_path).notes)
    with pytest.raises(ClusterError, match="no weights here"):
        look(client, tmp_path, replace(sleepers(tmp_path, 2), check=partial(complain, "weights")))


def test_a_folder_that_is_not_shared_is_refused(client, tmp_path, monkeypatch):
    # What this machine writes is not seen there.
    monkeypatch.setattr(under_test.storage, "put", lambda url, data: None)
    with pytest.raises(ClusterError, match=r"run is another folder on .* than where .*\n(.|\n)*s3://"):
        look(client, tmp_path)


def test_a_clock_that_is_off_is_noted(client, tmp_path, monkeypatch):
    late = SimpleNamespace(time=lambda: time.time() - 30)
    monkeypatch.setattr(under_test, "time", late)
    assert any("is 30 s ahead of this one" in note for note in look(client, tmp_path).notes)


def until(condition):
    while not condition():
        time.sleep(0.05)
