"""What a step states as its cost is what its tasks take: rows, bytes in storage and memory.

On a small world of real photos every step of every variant is measured. There a process is larger than its
tasks, so the formulas are also held to what tasks take on synthetic datasets of hundreds of megabytes.
"""

from dataclasses import replace

import pytest

from lmr.runtime.settings import layer
from lmr.runtime.steps import SHARD_BYTES, Given, closure
from lmr.runtime.tasks import ShardTask
from lmr.steps.both import Both
from lmr.steps.inputs import Inputs
from lmr.steps.photos.listing import list_photos
from lmr.steps.results.protocols import truth_for
from lmr.steps.results.scores import read_solution, solution_for
from tests.support import world as worlds
from tests.support.synthetic_inputs import inputs_of, write_inputs
from tests.support.task_memory import Job, measure
from workflows.retrieval import PRESETS, build

BY_INDEX = {name: {"exact_below": 1} for name in ("neighbours", "rank", "graph")}
VARIANTS = {
    "default": {},
    "asmk": {"search": {"method": "asmk"}},
    "offline": {"diffuse": {"method": "offline"}},
    "queries as nodes": {"diffuse": {"method": "offline"}, "columns": {"queries_are_nodes": True}},
    "indexed": BY_INDEX,
    "reduced regions": {"graph": {"regions": 5}},
    "copies": {"duplicates": {"action": "group"}},
    "refined": {"refine": {"method": "embedding"}},
}
NOISE_BYTES = 20_000_000  # what allocators, readers and first calls take, whatever the task


def settings_of(changes, photos_per_shard):
    return layer(PRESETS["vlad"], changes, {"ingest": {"photos_per_shard": photos_per_shard}})


def scored(inputs, right):
    """The same inputs, whose rankings are scored by protocols too."""
    lists = {query: {"right": [*photos]} for query, photos in right.items()}
    truth = truth_for(lists, inputs.photos, pruned=True)
    return replace(inputs, protocols=("map_at_5", "recall@1,5"), ground_truth=truth)


def differing(inputs):
    """The steps of each variant that no variant before has."""
    seen = {}
    for variant, changes in VARIANTS.items():
        for step in closure(build(inputs, settings_of(changes, 10)).targets):
            seen.setdefault(step.fingerprint, (variant, step))
    return list(seen.values())


def imagined():
    inputs = inputs_of(30, 12)
    return scored(inputs, dict.fromkeys(inputs.photos.queries.ids, inputs.photos.gallery.ids[:2]))


CASES = [f"{step.name}, {variant}" for variant, step in differing(imagined())]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """For each case its step, and what its tasks took."""
    folder = worlds.make(tmp_path_factory.mktemp("photos"))
    photos = Both(
        list_photos("gallery", str(folder / "gallery")), list_photos("queries", str(folder / "queries"))
    )
    right = read_solution(str(folder / "solution.csv"))
    solution = solution_for(right, photos, pruned=True)
    root = str(tmp_path_factory.mktemp("run"))
    cases = differing(scored(Inputs(photos=photos, solution=solution), right))
    steps = [step for _, step in cases]
    for step in steps:
        for source in step.inputs.values():
            if isinstance(source, Given):
                source.store(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        took = measure(Job(ShardTask.of(step, root), tuple(range(step.shards))) for step in steps)
    return {f"{s.name}, {v}": (s, t) for (v, s), t in zip(cases, took, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_step_takes_more_than_it_states(small, case):
    step, took = small[case]
    assert not took.errors
    assert took.rows <= step.cost.rows
    assert took.bytes <= step.cost.rows * step.cost.bytes_per_row + step.shards * SHARD_BYTES
    assert took.peak_bytes <= step.cost.peak_bytes


LOCAL = {"index": {"lists": 256}, "search": {"probes": 1, "candidates": 5}}
ASMK = {**LOCAL, "search": {"method": "asmk", "candidates": 5}, "asmk": {"words": 1024}}
LONG = {"neighbours": {"neighbours": 400}, "rank": {"depth": 1000}}
FEW = {"diffuse": {"iterations": 2}, "columns": {"iterations": 2}}
HEAVY = {
    # Photos of the gallery, queries, photos in a shard; settings; steps that are given; targets.
    "local": (
        *(400, 100, 200),
        LOCAL,
        ("ingest", "ingest_queries", "extract_local", "extract_local_queries"),
        lambda flow: [flow.rankings["verify"].step, *flow.described.gallery.source.parts],
    ),
    "asmk": (
        *(400, 100, 200),
        ASMK,
        ("ingest", "ingest_queries", "extract_local", "extract_local_queries"),
        lambda flow: [flow.rankings["search"].step],
    ),
    "global": (
        *(12_000, 1000, 6000),
        LONG,
        ("extract_global", "extract_global_queries", "rerank"),
        lambda flow: [flow.rankings["expand"].step],
    ),
    "indexed": (
        *(40_000, 2000, 10_000),
        {**BY_INDEX, "neighbours": {"neighbours": 100, "exact_below": 1}},
        ("extract_global", "extract_global_queries", "neighbours"),
        lambda flow: [flow.rankings["rank"].step],
    ),
    "regions": (
        *(1000, 500, 500),
        {**FEW, "graph": {"neighbours": 200}},
        ("extract_global", "extract_global_queries", "expand", "augment"),
        lambda flow: [flow.rankings["diffuse"].step],
    ),
    "reduced": (
        *(2000, 10, 2000),
        {"graph": {"regions": 5}},
        ("extract_global",),
        lambda flow: [step for step in closure(flow.targets) if step.name == "reduce_regions"],
    ),
    "refined": (
        *(12_000, 4000, 6000),
        {"refine": {"method": "k-reciprocal", "depth": 10}, "diffuse": {"method": "none"}},
        ("extract_global", "extract_global_queries", "expand"),
        lambda flow: [flow.rankings["refine"].step],
    ),
    "linked": (
        *(12_000, 4000, 6000),
        {"refine": {"method": "embedding", "depth": 10}, "diffuse": {"method": "none"}},
        ("expand", "verify", "verify_gallery"),
        lambda flow: [flow.rankings["refine"].step],
    ),
    "offline": (
        *(8000, 2000, 4000),
        {**FEW, "diffuse": {"method": "offline"}},
        ("neighbours", "expand"),
        lambda flow: [flow.rankings["diffuse"].step],
    ),
}


def declared(name, shrunk=1):
    """The steps of a scenario to measure, with their inputs written; the smaller, the faster."""
    gallery, queries, per_shard, changes, given, targets = HEAVY[name]
    sizes = (max(gallery // shrunk, 8), max(queries // shrunk, 4))
    flow = build(inputs_of(*sizes), settings_of(changes, max(per_shard // shrunk, 4)))
    return flow, targets(flow), given


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_tasks_hold_what_is_stated_and_a_quarter_of_it_at_least(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_CACHE", str(tmp_path / "cache"))
    root, warm_root = str(tmp_path / "run"), str(tmp_path / "warm")
    steps = write_inputs(*declared(name), root)
    warm = write_inputs(*declared(name, shrunk=50), warm_root)
    jobs = [
        Job(ShardTask.of(step, root), tuple(range(step.shards)), ShardTask.of(small, warm_root))
        for step, small in zip(steps, warm, strict=True)
    ]
    wrong = []
    for step, took in zip(steps, measure(jobs), strict=True):
        assert not took.errors, step.name
        stated, held = step.cost.task_bytes, took.task_bytes
        size = step.cost.rows * step.cost.bytes_per_row + step.shards * SHARD_BYTES
        print(f"{step.name}: {held / 1e6:.0f} MB, stated {stated / 1e6:.0f} MB")
        if held > stated + NOISE_BYTES or stated > 4 * held + NOISE_BYTES:
            wrong.append(f"{step.name}: a task takes {held:,} bytes, stated are {stated:,.0f}")
        if took.bytes > size or took.rows > step.cost.rows:
            wrong.append(f"{step.name}: {took.rows:,} rows of {took.bytes:,} bytes, stated are {size:,.0f}")
    assert not wrong, "\n".join(wrong)
