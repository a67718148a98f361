"""Re-ranking by each other as a step: in the order of the numerics, off unless it is asked for."""

from types import SimpleNamespace

import numpy as np
import pytest

from lmr.cluster.client import Where
from lmr.errors import SettingsError
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.refinement import embedded_scores, k_reciprocal_scores, max_pooled_scores, with_refined
from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.scheduler.run import run
from lmr.steps.ranking import Ranking
from lmr.steps.refinement import RefineSettings, gallery_links, refine, refine_shard
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset
from tests.support.synthetic_inputs import inputs_of, write_inputs
from tests.support.toys import Quiet
from workflows.retrieval import PRESETS, build

QUERIES, PHOTOS, DEPTH, LISTED = 7, 40, 12, 20
METHODS = ("k-reciprocal", "superglobal", "embedding")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def world():
    """Lists of some queries, descriptors, inliers of queries with photos and of photos with each other."""
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(6, 24)))
    shows = rng.integers(0, 6, PHOTOS)
    gallery = unit(centres[shows] + 0.2 * rng.normal(size=(PHOTOS, 24))).astype(np.float16)
    queries = unit(centres[np.arange(QUERIES) % 6] + 0.2 * rng.normal(size=(QUERIES, 24))).astype(np.float16)
    queries[4] = 0  # a photo without a descriptor, which nothing was verified with either
    photos = np.stack([rng.permutation(PHOTOS)[:LISTED] for _ in range(QUERIES)]).astype(np.int32)
    photos[2, 5:] = -1
    photos[3] = -1
    scores = np.sort(rng.random(photos.shape).astype(np.float32), axis=1)[:, ::-1]
    asked = np.where(rng.random((QUERIES, PHOTOS)) < 0.5, 0, rng.integers(0, 60, (QUERIES, PHOTOS)))
    asked[4] = 0
    among = np.triu(np.where(shows[:, None] == shows, rng.integers(0, 60, (PHOTOS, PHOTOS)), 0), 1)
    return SimpleNamespace(
        gallery=gallery,
        queries=queries,
        photos=photos,
        scores=np.where(photos >= 0, scores, 0),
        confident=np.array([0, 2, 1, 0, 0, 3, 0], np.int32),
        asked=asked,
        among=among + among.T,
    )


def written(world, folder, per_shard):
    """Write what the step reads, so many queries in a shard."""

    def dataset(name, *tables):
        made = Dataset(f"{folder}/{name}", name, f"{per_shard:012d}", len(tables))
        for shard, rows in enumerate(tables):
            made.write(shard, rows)
        return made

    parts = [np.arange(lo, min(lo + per_shard, QUERIES)) for lo in range(0, QUERIES, per_shard)]
    lists = [Ranking(part.astype(np.int32), world.photos[part], world.scores[part]).table() for part in parts]
    near, other = np.nonzero(np.triu(world.among))
    flipped = np.arange(len(near)) % 3 == 0  # a pair stands once, either way round
    one, two = np.where(flipped, other, near), np.where(flipped, near, other)
    query, photo = np.nonzero(world.asked)
    return {
        "ranked": dataset("ranked", *lists),
        "expanded": dataset("expanded", *(table({"confident": world.confident[part]}) for part in parts)),
        "described": dataset("described", *(table({"descriptor": world.queries[part]}) for part in parts)),
        "gallery": dataset(
            "gallery", table({"descriptor": world.gallery[:25]}), table({"descriptor": world.gallery[25:]})
        ),
        "verified": dataset("verified", pair_rows(query, photo, world.asked[query, photo])),
        "links": dataset("links", pair_rows(one, two, world.among[one, two])),
    }


def pair_rows(query, photo, inliers):
    return table(
        {
            "query": query.astype(np.int32),
            "photo": photo.astype(np.int32),
            "inliers": inliers.astype(np.int32),
        }
    )


def inputs_for(method, there):
    names = ("verified", "links") if method == "embedding" else ("described", "gallery")
    return {name: there[name] for name in ("ranked", "expanded", *names)}


def expected(world, method, q, photos):
    """Scores of a query's photos, by the numerics alone."""
    own, gallery = to_float(world.queries[q][None])[0], to_float(world.gallery[photos])
    if not own.any():
        return np.zeros(len(photos))
    if method == "superglobal":
        return max_pooled_scores(own, gallery)
    if method == "k-reciprocal":
        rows = np.concatenate([own[None], gallery]).astype(np.float64)
        return k_reciprocal_scores(rows @ rows.T)
    counts = np.zeros((len(photos) + 1,) * 2)
    counts[0, 1:] = counts[1:, 0] = world.asked[q, photos]
    counts[1:, 1:] = world.among[np.ix_(photos, photos)]
    return embedded_scores(counts / (counts + 10) + np.eye(len(counts)))


@pytest.mark.parametrize("weight", [0.5, None])
@pytest.mark.parametrize("method", METHODS)
def test_photos_stand_as_the_numerics_say_in_shards_of_any_size(method, weight, world, tmp_path):
    settings = RefineSettings(method=method, depth=DEPTH, weight=weight).only("method", "depth", "weight")
    found = {}
    for per_shard in (3, QUERIES):
        there = inputs_for(method, written(world, tmp_path / str(per_shard), per_shard))
        shards = range(there["ranked"].shards)
        rows = [refine_shard(shard, settings, **there) for shard in shards]
        found[per_shard] = [
            np.concatenate([column(part, name) for part in rows]) for name in ("query", "photos", "scores")
        ]
    for ours, theirs in zip(found[3], found[QUERIES], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    _, photos, scores = found[QUERIES]
    moved = 0
    for q, before in enumerate(world.photos):
        listed = before[:DEPTH][before[:DEPTH] >= 0]
        refined = expected(world, method, q, listed)
        own = world.scores[q, : len(listed)].astype(np.float64)
        total = refined if weight is None else with_refined(own, refined, weight)
        head = world.confident[q]
        order = [*range(head), *sorted(range(head, len(listed)), key=lambda i: (-total[i], i))]
        assert photos[q, : len(listed)].tolist() == listed[order].tolist()
        assert photos[q, len(listed) :].tolist() == before[len(listed) :].tolist()
        if weight is not None:
            np.testing.assert_allclose(scores[q, : len(listed)], total[order], rtol=1e-5)
        moved += photos[q].tolist() != before.tolist()
    assert moved >= 4
    # The query without a descriptor or inliers keeps its list.
    np.testing.assert_array_equal(photos[4], world.photos[4])


def flow_with(inputs, **refined):
    return build(inputs, layer(PRESETS["vlad"], {"refine": refined, "ingest": {"photos_per_shard": 20}}))


def test_it_is_off_by_default_and_on_it_makes_nothing_else_anew():
    inputs = inputs_of(60, 12)
    plain = flow_with(inputs)
    steps = {step.name: step.fingerprint for step in closure(plain.targets)}
    assert "refine" not in plain.rankings
    assert "refine" not in steps
    for method, more in (("superglobal", set()), ("embedding", {"gallery_pairs", "verify_gallery"})):
        flow = flow_with(inputs, method=method)
        found = {step.name: step.fingerprint for step in closure(flow.targets)}
        assert list(flow.rankings)[-1] == "refine"
        assert found.keys() - steps.keys() == {"refine", *more}
        changed = {name for name in steps if found[name] != steps[name]}
        assert changed == {"submit", "evaluate"}  # which name and score the last list


def test_another_number_of_neighbours_refines_by_descriptors_as_before():
    inputs = inputs_of(60, 12)
    for method, same in (("superglobal", True), ("embedding", False)):
        one, two = (
            flow_with(inputs, method=method, neighbours=n).rankings["refine"].step.fingerprint for n in (5, 9)
        )
        assert (one == two) == same


@pytest.mark.parametrize("method", METHODS)
def test_a_workflow_without_what_is_compared_is_told(method):
    flow = flow_with(inputs_of(60, 12))
    ranked, settings = flow.rankings["diffuse"], RefineSettings(method=method)
    with pytest.raises(SettingsError, match="this workflow has none") as told:
        refine(None, ranked, flow.rankings["expand"], None, None, settings)
    assert method in told.value.got
    assert refine(None, ranked, flow.rankings["expand"], None, None, RefineSettings()) is ranked


def test_no_pairs_of_the_gallery_are_verified_for_descriptors():
    assert gallery_links(None, None, None, RefineSettings(method="superglobal"), None) is None


GIVEN = ("extract_global", "extract_global_queries", "expand", "verify", "verify_gallery")


def synthetic(method, root):
    """A run whose last list is refined, given all that it reads."""
    flow = build(
        inputs_of(60, 40),
        layer(
            PRESETS["vlad"],
            {"refine": {"method": method}, "ingest": {"photos_per_shard": 20}, "diffuse": {"method": "none"}},
        ),
    )
    return write_inputs(flow, [flow.rankings["refine"].step], GIVEN, str(root))[-1]


def lists(step, root):
    return [column(step.dataset(str(root)).read(shard), "photos").tolist() for shard in range(step.shards)]


@pytest.mark.cluster
def test_a_cluster_gives_what_one_process_gives(tmp_path):
    method = "embedding"
    alone = synthetic(method, tmp_path / "alone")
    run([alone], str(tmp_path / "alone"))
    among = synthetic(method, tmp_path / "cluster")
    run([among], str(tmp_path / "cluster"), Where(workers=2), Quiet())
    assert alone.shards == 2
    assert lists(alone, tmp_path / "alone") == lists(among, tmp_path / "cluster")
