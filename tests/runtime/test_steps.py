"""Concat steps: made part by part, read as one dataset."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmr.cluster.client import Where
from lmr.errors import SettingsError
from lmr.runtime.graph import dask_graph, make_plan
from lmr.runtime.steps import Each, Given, Step, Whole, concat, grouped, per_part
from lmr.scheduler.run import RunFailed, run
from lmr.storage.arrow import column, table
from lmr.storage.datasets import locate
from lmr.storage.mapped import stack
from tests.support.costs import cost
from tests.support.toys import (
    NumberSettings,
    Quiet,
    ScaleSettings,
    calls_of,
    numbers,
    scaled,
    total,
    workflow,
)


def grown(calls, *sizes, faults=None, settings=None):
    """A generation of numbers per size, scaled by part and again over all, and their total."""
    placement = {"calls": str(calls), "faults": faults or {}}
    offsets = np.cumsum([0, *sizes]) * 10

    def generation(shards, offset):
        return Step(
            name="numbers",
            folder="numbers",
            make=numbers,
            settings=NumberSettings(offset=int(offset)),
            inputs={},
            shards=shards,
            cost=cost(rows=10 * shards, bytes_per_row=float(shards)),
            placement=placement,
        )

    def times(name, source):
        return Step(
            name=name,
            folder=name,
            make=scaled,
            settings=ScaleSettings(),
            inputs={"numbers": Each(source)},
            shards=source.shards,
            cost=cost(),
            placement=placement,
        )

    parts = concat(generation(n, offset) for n, offset in zip(sizes, offsets, strict=False))
    doubled = per_part(lambda part: times("scaled", part), parts)
    again = times("scaled_again", doubled)
    summed = Step(
        name="total",
        folder="total",
        make=total,
        settings=ScaleSettings(),
        inputs={"scaled": Whole(doubled)},
        shards=1,
        cost=cost(),
        placement=placement,
    )
    return parts, doubled, again, summed


def test_another_part_makes_nothing_of_the_first_again(tmp_path, where):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    run(grown(calls, 3)[2:], root, where, Quiet())
    *_, again, summed = grown(calls, 3, 2)
    listener = Quiet()
    outcome = run([again, summed], root, where, listener)
    assert calls_of(calls, "numbers") == [0, 0, 1, 1, 2]
    # `scaled` is called for the doubled parts (3, then 2) and for all shards of `scaled_again`, twice.
    assert len(calls_of(calls, "scaled")) == 3 + 3 + 2 + 5
    assert column(summed.dataset(root).read(0), "total")[0] == 2 * sum(range(50))
    assert np.concatenate([column(again.dataset(root).read(i), "n") for i in range(5)]).tolist() == [
        4 * n for n in range(50)
    ]
    assert [(s.step, s.made, s.found) for s in outcome.summaries] == [
        ("numbers", 2, 3),
        ("scaled", 2, 3),
        ("scaled_again", 5, 0),
        ("total", 1, 0),
    ]
    assert listener.counts == {"numbers": 2, "scaled": 2, "scaled_again": 5, "total": 1}
    assert run([again, summed], root, where, Quiet()).summaries == ()


def test_parts_made_in_one_run_share_a_bar(tmp_path, where):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    *_, summed = grown(calls, 2, 1, 2)
    listener = Quiet()
    outcome = run([summed], root, where, listener)
    assert [(s.step, s.made, s.rows) for s in outcome.summaries] == [
        ("numbers", 5, 50),
        ("scaled", 5, 50),
        ("total", 1, 1),
    ]
    assert listener.counts == {"numbers": 5, "scaled": 5, "total": 1}
    assert column(summed.dataset(root).read(0), "total")[0] == 2 * sum(range(50))


def test_a_failed_part_holds_back_what_needs_it_only(tmp_path, where):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    steps = grown(calls, 2, 1, faults={"numbers": {1: "refuse"}})
    with pytest.raises(RunFailed) as failure:
        run(steps[2:], root, where, Quiet())
    assert [r.shard for r in failure.value.failed] == [1]
    # Shard 1 of the first part, of `scaled` and of `scaled_again`, and the total.
    assert failure.value.skipped == 3
    assert sorted(steps[1].dataset(root).present()) == sorted(steps[2].dataset(root).present()) == [0, 2]
    run(grown(calls, 2, 1)[2:], root, where, Quiet())
    assert calls_of(calls, "numbers") == [0, 0, 1, 1]


def test_a_joined_dataset_reads_as_one(tmp_path):
    root = str(tmp_path / "run")
    parts, doubled, *_ = grown(tmp_path / "calls", 2, 3)
    run(doubled.parts, root, Where(), Quiet())
    dataset = parts.dataset(root)
    assert dataset.shards == parts.shards == 5
    assert parts.rows == 50
    assert parts.bytes_per_row == (20 * 2 + 30 * 3) / 50
    assert column(dataset.read(3, ["n"]), "n")[0] == 30
    assert column(dataset.read(3, ["n"], rows=range(2, 4)), "n").tolist() == [32, 33]
    assert dataset.facts(4)["rows"] == 10
    assert dataset.locate(3) == (parts.parts[1].dataset(root), 1)
    assert sorted(dataset.present()) == [0, 1, 2, 3, 4]
    (tmp_path / "run" / "numbers" / parts.parts[1].fingerprint / "part-00001.parquet").unlink()
    assert sorted(dataset.present()) == [0, 1, 2, 4]
    dataset.write(3, dataset.read(0))
    assert parts.parts[1].dataset(root).present()[1] == dataset.present()[3]
    np.testing.assert_array_equal(stack(doubled.dataset(root), "n"), 2.0 * np.arange(50))


def test_one_part_is_the_step_itself():
    first, second, third = workflow("x")
    assert concat([first]) is first
    assert per_part(lambda part: part, second) is second
    joined = concat([first, second])
    assert joined.fingerprint not in (first.fingerprint, second.fingerprint)
    assert joined.fingerprint != concat([second, first]).fingerprint
    assert [source.shards for source in grouped([first, third, first])] == [8, 1]


def test_a_graph_over_parts_stays_linear():
    *_, again, summed = grown("x", 500, 500)
    plan = make_plan([again, summed], "memory://nowhere")
    built = dask_graph(plan, "r")
    assert built.groups.keys() == {"numbers", "scaled", "scaled_again", "total"}
    assert len(built.graph.layers[built.groups["numbers"]]) == 1000
    # A task per shard, a barrier per part (2 + 2 + 1 + 1), the end.
    assert len(dict(built.graph)) == 3000 + 1 + 6 + 1
    edges = sum(len(task.dependencies) for task in dict(built.graph).values())
    assert edges < 10_000


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_shards_are_numbered_through(sizes):
    parts, *_ = grown("x", *sizes)
    found = [locate(parts.parts, i) for i in range(sum(sizes))]
    assert found == [(part, i) for part in parts.parts for i in range(part.shards)]
    with pytest.raises(IndexError):
        locate(parts.parts, sum(sizes))


@pytest.mark.parametrize(
    ("costs", "shards", "told"),
    [
        ({"task_bytes": 1e14}, 1, "bytes of memory for one task"),
        ({"task_bytes": float("inf")}, 1, "bytes of memory for one task"),
        ({"task_bytes": float("nan")}, 1, "bytes of memory for one task"),
        ({"rows": 10**12, "bytes_per_row": 1e6}, 1, "bytes in storage"),
        ({"mapped_bytes": 1e16}, 1, "bytes that each machine unpacks"),
        ({}, 10**8, "shards"),
    ],
)
def test_a_plan_refuses_what_no_machine_can_make(tmp_path, costs, shards, told):
    first = workflow(tmp_path)[0]
    make_plan([first], str(tmp_path))
    too_large = replace(first, shards=shards, cost=replace(first.cost, **costs))
    with pytest.raises(SettingsError, match=f"no machine can make the step numbers[\\s\\S]*{told}") as error:
        make_plan([too_large], str(tmp_path))
    assert "rows = 10" in error.value.fix


def test_an_empty_file_is_no_shard(tmp_path, where):
    """Some file systems leave one when a machine loses power."""
    *_, last = workflow(tmp_path / "calls")
    root = str(tmp_path / "run")
    run([last], root, where, Quiet())
    right = last.dataset(root).read(0)
    for step in workflow(tmp_path / "calls"):
        Path(step.dataset(root).shard_url(0)).write_bytes(b"")
    run([last], root, where, Quiet())
    assert last.dataset(root).read(0).equals(right)


def test_what_is_given_is_stored_again_where_all_is_made(tmp_path):
    given = Given(name="given", folder="given", rows=table({"x": np.arange(3)}), fingerprint="0" * 12)
    first = replace(workflow(tmp_path / "calls")[0], inputs={"given": given})
    root = str(tmp_path / "run")
    given.store(root)
    first.dataset(root).write(0, table({"x": np.arange(3)}))
    done = replace(first, shards=1)
    done.dataset(root).write(0, table({"x": np.arange(3)}))
    url = Path(given.dataset(root).shard_url(0))
    for lose in (url.unlink, lambda: url.write_bytes(b"")):
        lose()
        assert run([done], root, Where(), Quiet()).summaries == ()
        assert given.dataset(root).read(0).num_rows == 3
