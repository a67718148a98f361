"""Datasets that stand for the contest's, where a rehearsal does not make them: see `rehearsal.py`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scale import World, WorldSettings, unit

from lmr.retrieval.descriptors import to_float
from lmr.runtime.steps import Step
from lmr.steps.both import Both
from lmr.steps.features.columns import PHOTO_REGIONS, described_table
from lmr.steps.photos.listing import Photos, list_photos
from lmr.steps.ranking import Ranking
from lmr.storage.arrow import Ragged, column, ragged, table
from lmr.storage.datasets import Dataset

__all__ = [
    "Made",
    "noise_of",
    "regions_of",
    "repeated_photos",
    "ring_of",
    "theme_order",
    "world_of",
    "write_candidates",
    "write_described",
    "write_descriptors",
    "write_features",
    "write_pairs",
    "write_rankings",
    "write_sizes",
]

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Made(Dataset):
    """A dataset whose shards are made when they are read, and stored nowhere.

    Attributes
    ----------
    rows_of
        Makes columns of a shard, given its number and the columns' names; picklable.
    """

    rows_of: Callable[[int, Any], Columns]

    def present(self) -> dict[int, int]:
        """Return the size of each shard as the first one has it."""
        size = self.read(0, None).nbytes
        return dict.fromkeys(range(self.shards), size)

    def read(self, shard: int, columns: Any = None, *, rows: range | None = None) -> pa.Table:
        """Make a shard."""
        return table(self.rows_of(shard, columns))

    def facts(self, shard: int) -> dict[str, Any]:
        """Return how many rows a shard has."""
        return {"rows": self.read(shard, None).num_rows}


def repeated_photos(role: Any, folder: Path, count: int) -> Photos:
    """List the photos of a folder again and again, as so many photos."""
    listed = list_photos(role, str(folder))
    chosen = [i % len(listed) for i in range(count)]
    return replace(
        listed,
        ids=tuple(f"{role[0]}{i:07d}" for i in range(count)),
        paths=tuple(listed.paths[i] for i in chosen),
        stamps=tuple(listed.stamps[i] for i in chosen),
    )


def write_features(
    step: Step, root: str, source: Dataset, shards: int, photos_per_shard: int, photos: int | None = None
) -> Dataset:
    """Write the first shards of local features: those of extracted photos with noise, in another order."""
    rows = source.read(0)
    features = {name: column(rows, name) for name in rows.column_names}
    starts = np.flatnonzero(np.diff(features["photo"], prepend=-1))
    bounds = np.append(starts, len(features["photo"]))
    dataset = step.dataset(root)
    for shard in range(shards):
        if dataset.has(shard):
            continue
        rng = np.random.default_rng([shard, step.role == "queries"])
        end = (shard + 1) * photos_per_shard
        here = np.arange(shard * photos_per_shard, min(end, photos or end), dtype=np.int32)
        chosen = rng.integers(0, len(starts), len(here))
        chosen_rows = np.concatenate([np.arange(bounds[c], bounds[c + 1]) for c in chosen])
        columns = {name: values[chosen_rows] for name, values in features.items() if name != "photo"}
        noise = rng.integers(-2, 3, columns["descriptor"].shape, np.int8)
        noisy = np.clip(columns["descriptor"].astype(np.int16) + noise, 0, 255).astype(np.uint8)
        columns["xy"] = columns["xy"] + rng.normal(0, 0.5, columns["xy"].shape).astype(np.float32)
        counts = bounds[chosen + 1] - bounds[chosen]
        dataset.write(shard, table({"photo": np.repeat(here, counts), **columns, "descriptor": noisy}))
    return replace(dataset, shards=shards)


def write_described(
    step: Step, root: str, source: Dataset, shards: int, photos_per_shard: int, photos: int
) -> Dataset:
    """Write what a network makes of photos: that of described photos with noise, in another order."""
    rows = source.read(0)
    whole, regions = to_float(column(rows, "descriptor")), ragged(rows, "regions")
    dataset = step.dataset(root)
    for shard in range(shards):
        if dataset.has(shard):
            continue
        rng = np.random.default_rng([shard, step.role == "queries", 1])
        here = np.arange(
            shard * photos_per_shard, min((shard + 1) * photos_per_shard, photos), dtype=np.int32
        )
        chosen = rng.integers(0, len(whole), len(here))
        parts = [to_float(regions.values[slice(*regions.offsets[[c, c + 1]])]) for c in chosen]
        noisy = [_noisy(part, rng) for part in parts]
        dataset.write(shard, described_table(here, _noisy(whole[chosen], rng), noisy))
    return replace(dataset, shards=shards)


def _noisy(rows: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return unit rows with noise of three tenths of their length."""
    noise = rng.standard_normal(rows.shape, np.float32) * np.float32(0.3 / np.sqrt(rows.shape[1]))
    return unit(rows + noise)


def write_sizes(step: Step, root: str, shards: int, photos_per_shard: int, side_px: int) -> Dataset:
    """Write the first shards of ingested photos, without their files."""
    dataset = step.dataset(root)
    for shard in range(shards):
        if dataset.has(shard):
            continue
        n = photos_per_shard
        photos = np.arange(shard * n, (shard + 1) * n, dtype=np.int32)
        sides = {"width": np.full(n, side_px, np.int32), "height": np.full(n, side_px * 3 // 4, np.int32)}
        named = {"id": [f"{photo}" for photo in photos], "image": [b""] * n, "reason": [""] * n}
        dataset.write(shard, table({"photo": photos, **named, **sides, "note": [""] * n}))
    return replace(dataset, shards=shards)


def write_candidates(
    step: Step, root: str, gallery: int, queries: int, depth: int, verified: range, known: int
) -> NDArray[np.int32]:
    """Write the candidates of all queries; return them, (queries, depth).

    Every photo is a candidate equally often. Those of the first gallery photos (`verified`, rows) are of the
    first `known` queries only, whose features are there, each as rarely as can be.
    """
    others = gallery - verified.stop
    start = np.random.default_rng(0).integers(0, others, queries)[:, None]
    # A prime number of photos apart, so that no list names a photo twice.
    photos = (verified.stop + (start + 7919 * np.arange(depth)) % others).astype(np.int32)
    pairs = queries * depth * len(verified) // gallery
    pair = np.arange(pairs)
    # A query's pairs lie as far apart as can be, so that it meets each shard as rarely.
    apart = max(len(verified) // max(-(-pairs // known), 1), 1)
    photos[pair % known, pair // known] = verified.start + (pair % known + pair // known * apart) % len(
        verified
    )
    dataset = step.dataset(root)
    scores = np.broadcast_to(np.linspace(20, 1, depth, dtype=np.float32), photos.shape)
    per_shard = -(-queries // step.shards)
    for shard in range(step.shards):
        if not dataset.has(shard):
            part = slice(shard * per_shard, min((shard + 1) * per_shard, queries))
            numbers = np.arange(queries, dtype=np.int32)[part]
            ranking = Ranking(numbers, photos[part], np.ascontiguousarray(scores[part]))
            dataset.write(shard, ranking.table(background=np.full(len(numbers), 0.1, np.float32)))
    return photos


def write_pairs(dataset: Dataset, candidates: NDArray[np.int32], photos_per_shard: int) -> Dataset:
    """Write every pair of the candidates by gallery shard, with a few inliers each."""
    flat = candidates.ravel()
    order = np.argsort(flat // photos_per_shard, kind="stable")
    bounds = np.searchsorted(flat[order] // photos_per_shard, np.arange(dataset.shards + 1))
    for shard in range(dataset.shards):
        if dataset.has(shard):
            continue
        rows = order[bounds[shard] : bounds[shard + 1]]
        inliers = np.random.default_rng(shard).integers(0, 10, len(rows), np.int32)
        matches = np.zeros((int(inliers.sum()), 2), np.uint16)
        dataset.write(
            shard,
            table(
                {
                    "query": (rows // candidates.shape[1]).astype(np.int32),
                    "photo": flat[rows],
                    "inliers": inliers,
                    "tentative": inliers,
                    "transform": np.zeros((len(rows), 9), np.float32),
                    "matches": Ragged(matches, np.concatenate([[0], np.cumsum(inliers)]).astype(np.int64)),
                }
            ),
        )
    return dataset


def write_rankings(steps: Mapping[str, Step], root: str, candidates: NDArray[np.int32]) -> None:
    """Write whole rankings of every stage: the candidates, in their order."""
    depth = candidates.shape[1]
    for step in steps.values():
        dataset, per_shard = step.dataset(root), -(-len(candidates) // step.shards)
        for shard in range(step.shards):
            if dataset.has(shard):
                continue
            photos = candidates[shard * per_shard : (shard + 1) * per_shard]
            n = len(photos)
            numbers = np.arange(shard * per_shard, shard * per_shard + n, dtype=np.int32)
            scores = np.broadcast_to(np.linspace(1, 0.1, depth, dtype=np.float32), photos.shape)
            more = {
                "inliers": np.zeros(photos.shape, np.int32),
                "confident": np.zeros(n, np.int32),
                "background": np.full(n, 0.1, np.float32),
            }
            dataset.write(shard, Ranking(numbers, photos, np.ascontiguousarray(scores)).table(**more))


def world_of(photos: int, queries: int, dimension: int) -> World:
    """Return a synthetic world of so many photos."""
    return World(WorldSettings(gallery=photos, queries=queries, dimension=dimension))


def _described(world: World, shown: NDArray[Any], seed: list[int], regions: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    whole = world.describe(shown, rng).astype(np.float16)
    views = [whole, *(world.describe(shown, rng).astype(np.float16) for _ in range(regions - 1))]
    values = np.stack(views, axis=1).reshape(-1, whole.shape[1]) if regions else whole[:0]
    return {"descriptor": whole, "regions": Ragged(values, np.arange(len(shown) + 1) * regions)}


def write_descriptors(described: Both[Any], root: str, world: World) -> None:
    """Write the gallery's descriptors, those of its first shard and of the first queries with regions."""
    for role, side in described.items():
        shown, step = getattr(world, role), side.source.parts[0]
        dataset, per_shard = step.dataset(root), side.per_shard
        for shard in range(step.shards if role == "gallery" else 1):
            if not dataset.has(shard):
                photos = np.arange(
                    shard * per_shard, min((shard + 1) * per_shard, len(shown)), dtype=np.int32
                )
                regions = 0 if shard else PHOTO_REGIONS
                seed = [shard, role == "queries"]
                found = _described(world, shown[photos], seed, regions)
                dataset.write(shard, table({"photo": photos, **found}))


@dataclass(frozen=True)
class noise_of:
    """A shard of whole photos' descriptors without any order in them."""

    dimension: int
    per_shard: int

    def __call__(self, shard: int, columns: Any) -> Columns:
        """Make them."""
        found = np.random.default_rng(shard).standard_normal((self.per_shard, self.dimension), np.float32)
        return {"descriptor": unit(found).astype(np.float16)}


@dataclass(frozen=True)
class regions_of:
    """The regions of a shard of a synthetic world's photos; with no dimension, only how many there are."""

    photos: int
    dimension: int
    per_shard: int

    def __call__(self, shard: int, columns: Any) -> Columns:
        """Make them."""
        photos = np.arange(
            shard * self.per_shard, min((shard + 1) * self.per_shard, self.photos), dtype=np.int32
        )
        if not self.dimension:
            count = len(photos) * PHOTO_REGIONS
            offsets = np.arange(len(photos) + 1) * PHOTO_REGIONS
            return {"photo": photos, "regions": Ragged(np.zeros((count, 1), np.float16), offsets)}
        world = _worlds.setdefault((self.photos, self.dimension), world_of(self.photos, 10, self.dimension))
        found = _described(world, world.gallery[photos], [shard, 0], PHOTO_REGIONS)
        return {"photo": photos, **{name: found[name] for name in columns or found if name in found}}


_worlds: dict[Any, World] = {}


def theme_order(world: World) -> NDArray[np.int32]:
    """Return the photos in order of the theme to which each is nearest."""
    themes, theme = world.themes / np.linalg.norm(world.themes, axis=1, keepdims=True), []
    for shard in range(-(-len(world.gallery) // 10_000)):
        shown = world.gallery[shard * 10_000 : (shard + 1) * 10_000]
        seen = np.where((shown >= 0)[:, None], world.start[shown], 0)
        theme.append((seen @ themes.T).argmax(axis=1))
    return np.argsort(np.concatenate(theme), kind="stable").astype(np.int32)


@dataclass(frozen=True)
class ring_of:
    """Links, or edges, of each region to the same region of photos beside it in an order: all are mutual."""

    order: Path
    neighbours: int
    per_shard: int

    def __call__(self, shard: int, columns: Any) -> Columns:
        """Make those of a shard of photos."""
        names = columns or ("ids", "sims")
        count = min(self.per_shard, len(_places(self.order)) - shard * self.per_shard) * PHOTO_REGIONS
        offsets = np.arange(count + 1) * self.neighbours
        found: dict[str, Any] = {}
        if "ids" in names or "columns" in names:
            ids = _ring(self.order, self.neighbours, self.per_shard, shard)
            found["ids"] = ids
            found["columns"] = Ragged(np.sort(ids, axis=1).reshape(-1, 1), offsets)
        found["sims"] = np.tile(np.linspace(0.9, 0.5, self.neighbours, dtype=np.float32), (count, 1))
        found["values"] = Ragged(np.full((count * self.neighbours, 1), 0.4, np.float32), offsets)
        return {name: found[name] for name in names}


def _ring(order: Path, neighbours: int, per_shard: int, shard: int) -> NDArray[np.int32]:
    """Return the nodes beside each node of a shard, (nodes, neighbours)."""
    photos = np.load(order, mmap_mode="r")
    places = _places(order)[shard * per_shard : (shard + 1) * per_shard]
    steps = np.concatenate(
        [np.arange(1, neighbours // 2 + 1), -np.arange(1, neighbours - neighbours // 2 + 1)]
    )
    beside = photos[(places[:, None] + steps) % len(photos)].astype(np.int32)
    nodes = beside[:, None, :] * PHOTO_REGIONS + np.arange(PHOTO_REGIONS, dtype=np.int32)[:, None]
    return nodes.reshape(-1, neighbours)


def _places(order: Path) -> NDArray[np.int64]:
    if order not in _found:
        _found[order] = np.argsort(np.load(order))
    return _found[order]


_found: dict[Path, NDArray[np.int64]] = {}
