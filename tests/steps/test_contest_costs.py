"""At the contest's size no task states more than 1.5 GB of its own memory, whatever the step.

That the statements are kept is measured in `test_costs.py`, and for what happens at this size alone in
`test_large_forms.py`.
"""

from dataclasses import replace

import pytest

from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.steps.features.weights import Weights
from tests.support.synthetic_inputs import inputs_of
from workflows.retrieval import PRESETS, build

GALLERY, QUERIES = 1_000_000, 100_000
MOST_BYTES = 1.5e9
PHOTO_BYTES = 150_000  # as of web albums
ROOTSIFT = {"local": {"features": "rootsift", "max_features": 1000}}  # 128 numbers, a byte each
DELF = {"local": {"features": "delf", "max_features": 1000}}  # 40 numbers, two bytes each
CASES = {
    # Preset, settings, and gallery photos in a shard.
    "default": ("lite0", {}, 128),
    "default delf": ("lite0", DELF, 128),
    "default asmk": ("lite0", {"search": {"method": "asmk"}}, 128),
    "rootsift": ("vlad", ROOTSIFT, 1000),
    "delf": ("vlad", DELF, 1000),
    "offline": ("vlad", {**ROOTSIFT, "diffuse": {"method": "offline"}}, 1000),
    "asmk": ("vlad", {**ROOTSIFT, "search": {"method": "asmk"}}, 1000),
}


@pytest.fixture(scope="module")
def inputs():
    made = inputs_of(GALLERY, QUERIES)
    stored = made.photos.map(lambda side: replace(side, stamps=(f"{PHOTO_BYTES} 0",) * len(side)))
    return replace(made, photos=stored, local_weights=Weights("/w/delf", "cd" * 32))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_task_of_the_contest_states_more_than_a_worker_of_4_gb_can_spare(inputs, case):
    preset, changes, per_shard = CASES[case]
    shards = {"ingest": {"photos_per_shard": per_shard}}
    steps = closure(build(inputs, layer(PRESETS[preset], changes, shards)).targets)
    assert len(steps) > 15
    assert {step.name: step.cost.task_bytes for step in steps if step.cost.task_bytes > MOST_BYTES} == {}
