"""Photos of the gallery may have fewer features than queries; what queries have made stays valid."""

from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.steps.both import Both
from lmr.steps.inputs import Inputs
from tests.steps.test_fingerprints import photos
from workflows.retrieval import PRESETS, build


def steps(**local):
    inputs = Inputs(photos=Both(photos("gallery", 300), photos("queries", 40)))
    flow = build(inputs, layer(PRESETS["vlad"], {"local": local}))
    return {step.name: step for step in closure(flow.targets)}


def test_the_gallery_alone_has_fewer_features():
    plain, fewer, few = steps(), steps(max_gallery_features=300), steps(max_features=300)
    assert fewer["extract_local"].settings.max_features == 300
    assert fewer["extract_local_queries"].settings.max_features == 1000
    # Shards are those of the same features made otherwise.
    assert fewer["extract_local_queries"].fingerprint == plain["extract_local_queries"].fingerprint
    assert fewer["extract_local"].fingerprint == few["extract_local"].fingerprint
    assert fewer["extract_local"].cost.rows == 300 * 300
    assert fewer["index"].cost.rows == 0.3 * plain["index"].cost.rows
