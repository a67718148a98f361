"""The retrieval workflow on a cluster with a GPU host: extraction asks for a GPU, and calls are counted.

Nothing here changes what is computed: resources and placement are no part of a fingerprint.
"""

import os

from lmr.runtime.steps import closure
from tests.support.counting import counted
from workflows import retrieval

PRESETS = retrieval.PRESETS


def build(inputs, settings):
    flow = retrieval.build(inputs, settings)
    for step in closure(flow.targets):
        counts = {
            "counted_make": step.make,
            "counted_step": step.name,
            "counted_in": os.environ["LMR_TEST_CALLS"],
            "seconds": 1.0 if step.name == "verify" else 0.0,
        }
        object.__setattr__(step, "placement", {**step.placement, **counts})
        object.__setattr__(step, "make", counted)
        if step.name.startswith("extract_"):
            object.__setattr__(step, "resources", {"GPU": 1})
    return flow
