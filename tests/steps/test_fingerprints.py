"""Runs that were made before stay valid: the fingerprints of the default workflow are what they were.

`fingerprints.json` holds the folder and fingerprint of every step, written before the project was
rearranged. A change of meaning changes it, and is named in the commit that does.
"""

import json
from pathlib import Path

import pytest

from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.steps.both import Both
from lmr.steps.features.weights import Weights
from lmr.steps.photos.listing import Photos
from lmr.steps.results.scores import solution_for
from lmr.steps.workflow import Inputs
from workflows.retrieval import PRESETS, build

GOLDEN = json.loads(Path(__file__).with_name("fingerprints.json").read_text())

SEARCHED_BY_INDEX = {name: {"exact_below": 1} for name in ("neighbours", "rank", "graph")}
CASES = {
    "default": ("lite0", {}, (0,)),
    "vlad": ("vlad", {}, (0,)),
    "triangulation": ("triangulation", {}, (0,)),
    "gem": ("gem", {}, (0,)),
    "paper": ("paper", {}, (0,)),
    "two generations": ("vlad", {}, (0, 200)),
    "asmk": ("vlad", {"search": {"method": "asmk"}}, (0,)),
    "offline": ("vlad", {"diffuse": {"method": "offline"}}, (0,)),
    "no diffusion": ("vlad", {"diffuse": {"method": "none"}}, (0,)),
    "reduced regions": ("vlad", {"graph": {"regions": 5}}, (0,)),
    "indexed": ("vlad", SEARCHED_BY_INDEX, (0,)),
    "offline queries": ("vlad", {"diffuse": {"method": "offline"}, "columns": {"truncation": 200}}, (0,)),
    "xfeat": ("vlad", {"local": {"features": "xfeat"}}, (0,)),
    "calibrated": ("vlad", {"verify": {"min_inliers": 20}, "ingest": {"photos_per_shard": 50}}, (0,)),
}


def photos(name, count, starts=(0,)):
    ids = tuple(f"{name[0]}{i:04d}" for i in range(count))
    paths, stamps = tuple(f"{i}.jpg" for i in ids), tuple(f"{1000 + i} 1" for i in range(count))
    return Photos(name, f"/photos/{name}", ids, paths, stamps, starts)


@pytest.mark.parametrize("case", CASES)
def test_fingerprints_are_what_they_were(case):
    preset, changes, starts = CASES[case]
    gallery, queries = photos("gallery", 300, starts), photos("queries", 40)
    photos_of_both = Both(gallery, queries)
    right = {queries.ids[0]: [gallery.ids[3]], queries.ids[1]: [gallery.ids[5], gallery.ids[6]]}
    inputs = Inputs(
        photos=photos_of_both,
        solution=solution_for(right, photos_of_both),
        weights=Weights("/w/gem.pth", "ab" * 32),
        local_weights=Weights("/w/x.pt", "cd" * 32),
    )
    flow = build(inputs, layer(PRESETS[preset], changes))
    assert [f"{step.folder}/{step.fingerprint}" for step in closure(flow.targets)] == GOLDEN[case]
