"""Datasets of any size that steps read, made of random numbers: what earlier steps would have written."""

import numpy as np

from lmr.runtime.steps import closure
from lmr.steps.both import Both
from lmr.steps.features.columns import PHOTO_REGIONS
from lmr.steps.inputs import Inputs
from lmr.steps.photos.listing import Photos
from lmr.steps.results.scores import solution_for
from lmr.storage.arrow import Ragged, table

__all__ = ["inputs_of", "write_inputs"]

WIDTH_PX, HEIGHT_PX = 640, 480
FOUND = 60  # inliers of a pair: as many as a good one has


def inputs_of(gallery, queries):
    """So many photos that no file is of, and a solution."""
    photos = Both(_photos("gallery", gallery), _photos("queries", queries))
    right = dict.fromkeys(photos.queries.ids, photos.gallery.ids[:2])
    return Inputs(photos=photos, solution=solution_for(right, photos))


def _photos(role, count):
    ids = tuple(f"{role[0]}{i:07d}-of-a-photo" for i in range(count))
    return Photos(role, f"/photos/{role}", ids, tuple(f"{i}.jpg" for i in ids), ("1000 1",) * count)


def write_inputs(flow, targets, given, root):
    """Write what is given (steps by name) of all that some targets need; return the others, in order."""
    for photos in flow.inputs.photos.values():
        photos.given().store(root)
    flow.inputs.solution.store(root)
    made = []

    def visit(step):
        if step in made:
            return
        if step.name in given:
            _write(flow, step, root)
            return
        for source in step.inputs.values():
            for part in getattr(getattr(source, "step", None), "parts", ()):
                visit(part)
        made.append(step)

    for target in targets:
        visit(target)
    assert made == [step for step in closure(targets) if step in made]
    return made


def _write(flow, step, root):
    dataset = step.dataset(root)
    if dataset.present():
        return
    rng = np.random.default_rng(len(step.name))
    count = flow.inputs.photos.of(step.role or "gallery")
    each = count.per_shard
    for shard in range(step.shards):
        photos = np.arange(shard * each, min((shard + 1) * each, len(count)), dtype=np.int32)
        dataset.write(shard, table(MAKERS[step.name.removesuffix("_queries")](flow, step, photos, rng)))


def _images(flow, step, photos, rng):
    n = len(photos)
    sizes = {"width": np.full(n, WIDTH_PX, np.int32), "height": np.full(n, HEIGHT_PX, np.int32)}
    names = [f"{photo}" for photo in photos]
    return {"photo": photos, "id": names, "image": [b""] * n, **sizes, "reason": [""] * n}


def _features(flow, step, photos, rng):
    n = len(photos) * step.settings.max_features
    xy = rng.random((n, 2), np.float32) * np.array([WIDTH_PX, HEIGHT_PX], np.float32)
    return {
        "photo": np.repeat(photos, step.settings.max_features),
        "xy": xy,
        "scale": np.ones(n, np.float32),
        "orientation": np.zeros(n, np.float32),
        "score": np.ones(n, np.float32),
        "descriptor": rng.integers(0, 90, (n, 128), np.uint8),
    }


def _described(flow, step, photos, rng):
    n, d = len(photos), step.settings.dimension
    centres = np.random.default_rng(0).standard_normal((50, d), np.float32)

    def near(rows):
        x = centres[rows] + 0.7 * rng.standard_normal((len(rows), d), np.float32)
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)

    shown = rng.integers(0, len(centres), n)
    offsets = np.arange(n + 1) * PHOTO_REGIONS
    regions = Ragged(near(np.repeat(shown, PHOTO_REGIONS)), offsets)
    return {"photo": photos, "descriptor": near(shown), "regions": regions}


def _augmented(flow, step, photos, rng):
    described = flow.described.gallery.source
    rows = _described(flow, described.parts[0], photos, rng)
    return {"photo": photos, "descriptor": rows["descriptor"]}


def _ring(nodes, total, k):
    """Each node's neighbours are those beside it: links are mutual."""
    steps = np.concatenate([np.arange(1, k // 2 + 1), -np.arange(1, k - k // 2 + 1)])
    ids = ((nodes[:, None] + steps) % total).astype(np.int32)
    return {"ids": ids, "sims": np.broadcast_to(np.float32(0.9), ids.shape).copy()}


def _neighbours(flow, step, photos, rng):
    return {"photo": photos, **_ring(photos, step.rows, step.settings.neighbours)}


def _links(flow, step, photos, rng):
    per_photo = step.rows // len(flow.inputs.photos.gallery)
    nodes = np.arange(photos[0] * per_photo, (photos[-1] + 1) * per_photo)
    return _ring(nodes, step.rows, step.settings.neighbours)


def _ranking(flow, photos, depth, rng):
    gallery = len(flow.inputs.photos.gallery)
    ranked = np.argsort(rng.random((len(photos), gallery), np.float32), axis=1)[:, :depth].astype(np.int32)
    scores = np.sort(rng.random(ranked.shape, np.float32), axis=1)[:, ::-1]
    return {"query": photos, "photos": ranked, "scores": scores}


def _candidates(flow, step, photos, rng):
    chance = np.full(len(photos), 0.1, np.float32)
    return {**_ranking(flow, photos, flow.rankings["search"].depth, rng), "background": chance}


def _ranked(flow, step, photos, rng):
    return _ranking(flow, photos, flow.rankings["rank"].depth, rng)


def _verified(flow, step, photos, rng):
    rows = _candidates(flow, step, photos, rng)
    inliers = np.sort(rng.integers(0, 30, rows["photos"].shape, np.int32), axis=1)[:, ::-1]
    return {**rows, "inliers": inliers, "confident": (inliers > 10).sum(axis=1).astype(np.int32)}


def _expanded(flow, step, photos, rng):
    x = rng.standard_normal((len(photos), flow.described.queries.dimension), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    confident = np.zeros(len(photos), np.int32)
    return {**_ranked(flow, step, photos, rng), "descriptor": x.astype(np.float16), "confident": confident}


def _pairs(flow, step, photos, rng):
    """Pairs of every query, or of every photo of the gallery, with some photos of the shard."""
    n = len(flow.inputs.photos.of("gallery" if step.name == "verify_gallery" else "queries"))
    each = max(step.rows // step.shards // n, 1)
    query = np.repeat(np.arange(n, dtype=np.int32), each)
    photo = (photos[0] + np.arange(len(query)) % len(photos)).astype(np.int32)
    counts = rng.integers(0, 30, len(query), np.int32)
    matches = np.zeros((len(query) * FOUND, 2), np.uint16)
    return {
        "query": query,
        "photo": photo,
        "inliers": counts,
        "tentative": counts,
        "transform": np.zeros((len(query), 9), np.float32),
        "matches": Ragged(matches, np.arange(len(query) + 1) * FOUND),
    }


MAKERS = {
    "ingest": _images,
    "extract_local": _features,
    "extract_global": _described,
    "augment": _augmented,
    "neighbours": _neighbours,
    "link_regions": _links,
    "search": _candidates,
    "rerank": _verified,
    "rank": _ranked,
    "expand": _expanded,
    "verify": _pairs,
    "verify_gallery": _pairs,
}
