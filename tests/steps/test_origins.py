"""Why a plan makes steps again."""

from dataclasses import replace

from lmr.runtime.graph import make_plan
from lmr.runtime.steps import closure
from lmr.runtime.tasks import ShardTask, make_shard
from lmr.steps.results.folder.origins import RECORD, Origin, peculiar, read_origins, reasons, store_origins
from tests.support.toys import NumberSettings, ScaleSettings, workflow


def made(tmp_path, **settings):
    """Make every shard of the toy workflow in a folder, as a run does; return its steps."""
    root = str(tmp_path / "run")
    steps = workflow(tmp_path / "calls", **settings)
    store_origins(closure([steps[-1]]), root)
    for step in steps:
        task = ShardTask.of(step, root)
        for shard in range(step.shards):
            assert make_shard(task, shard).state in ("made", "found")
    return steps


def told(tmp_path, *steps):
    return reasons(make_plan([steps[-1]], str(tmp_path / "run")))


def test_a_changed_setting_is_named_and_what_depends_on_it(tmp_path):
    made(tmp_path)
    assert told(tmp_path, *workflow(tmp_path / "calls")) == []
    assert told(tmp_path, *workflow(tmp_path / "calls", scale=ScaleSettings(factor=3.0))) == [
        "why steps are made again",
        "  scaled: factor 2.0 → 3.0",
        "  and what depends on them: total",
    ]
    both = workflow(tmp_path / "calls", numbers_=NumberSettings(rows=20), scale=ScaleSettings(factor=3.0))
    assert told(tmp_path, *both) == [
        "why steps are made again",
        "  numbers: rows 10 → 20",
        "  scaled: factor 2.0 → 3.0",
        "  and what depends on them: total",
    ]


def test_the_nearest_dataset_is_compared(tmp_path):
    made(tmp_path, numbers_=NumberSettings(rows=20, offset=5))
    made(tmp_path, numbers_=NumberSettings(rows=20, offset=6))
    changed = workflow(tmp_path / "calls", numbers_=NumberSettings(rows=30, offset=6))
    assert told(tmp_path, *changed)[1] == "  numbers: rows 20 → 30"


def test_code_weights_and_photos_are_reasons_too(tmp_path):
    first, second, third = made(tmp_path)
    newer = replace(first, revision=2, weights="abc")
    assert told(tmp_path, newer)[1] == "  numbers: its code, revision 1 → 2, other weights of the network"
    assert told(tmp_path, replace(first, shards=9))[1] == "  numbers: shards 4 → 9"
    assert peculiar(Origin.of(first), Origin.of(newer)) == "other code or weights"
    other = workflow(tmp_path / "calls", scale=ScaleSettings(factor=3.0))
    assert peculiar(Origin.of(other[1]), Origin.of(second)) == "factor 3.0"
    assert peculiar(Origin.of(other[2]), Origin.of(third)) == "other scaled"


def test_what_was_never_made_has_no_reason(tmp_path):
    steps = workflow(tmp_path / "calls")
    assert told(tmp_path, *steps) == []
    store_origins(closure([steps[-1]]), str(tmp_path / "run"))  # begun, and no shard made
    assert told(tmp_path, *workflow(tmp_path / "calls", scale=ScaleSettings(factor=3.0))) == []


def test_a_damaged_note_takes_nothing_but_the_reasons(tmp_path):
    made(tmp_path)
    assert len(read_origins(str(tmp_path / "run"))) == 3
    (tmp_path / "run" / RECORD).write_text('{"steps": 3}')
    assert read_origins(str(tmp_path / "run")) == {}
    assert told(tmp_path, *workflow(tmp_path / "calls", scale=ScaleSettings(factor=3.0))) == []
