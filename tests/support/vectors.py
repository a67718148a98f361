"""Small described galleries for the tests of steps 3 to 5, and everything that follows from them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmr.runtime.settings import Settings
from lmr.runtime.steps import Each, Step
from lmr.steps.both import Both
from lmr.steps.diffusion.offline_columns import ColumnSettings, solve_columns
from lmr.steps.diffusion.online import DiffuseSettings, diffuse
from lmr.steps.diffusion.region_graph import GraphSettings, region_graph
from lmr.steps.expansion import ExpandSettings, expand
from lmr.steps.features.columns import Described
from lmr.steps.global_search.augmentation import AugmentSettings, augment
from lmr.steps.global_search.knn_graph import NeighbourSettings, find_neighbours
from lmr.steps.global_search.rank import RankSettings, rank
from lmr.steps.global_search.search import searchable
from lmr.steps.ranking import Ranked, read_ranking
from lmr.storage.arrow import Ragged, column, table
from tests.support.costs import cost
from tests.support.descriptor_clusters import clusters

if TYPE_CHECKING:
    from lmr.storage.datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class VectorSettings(Settings):
    """What some photos look like."""

    photos: int
    per_shard: int
    dimension: int = 16
    seed: int = 0
    first: int = 0
    """Row of the whole set at which these photos begin."""
    total: int = 0
    regions: int = 3
    noise: float = 0.5
    file: str = ""
    """An .npz to take them from instead, and the array's name after a colon."""


def described(settings, name="gallery"):
    step = Step(
        name=f"described_{name}",
        folder=f"global/{name}",
        role=name,
        make=described_shard,
        settings=settings,
        inputs={},
        shards=-(-settings.photos // settings.per_shard),
        cost=cost(settings.photos, 2.0 * settings.dimension * (1 + settings.regions)),
        weights=f"{settings.first} {settings.file}",
    )
    return Described(step, settings.dimension)


def vectors_of(settings):
    if settings.file:
        path, name = settings.file.rsplit(":", 1)
        return np.load(path)[name]
    x = clusters(settings.total or settings.photos, settings.dimension, settings.seed, noise=settings.noise)
    x[3::36] = 0  # photos without descriptor
    return x[settings.first :][: settings.photos]


def described_shard(shard, settings):
    photos = np.arange(settings.photos, dtype=np.int32)[shard * settings.per_shard :][: settings.per_shard]
    whole = vectors_of(settings)[photos]
    regions, counts = [], []
    for photo, x in zip(photos, whole, strict=True):
        if not x.any():
            counts.append(0)
            continue
        rng = np.random.default_rng([settings.first, photo])
        more = x + 0.3 * rng.standard_normal((settings.regions - 1, len(x)))
        regions += [x, *(more / np.linalg.norm(more, axis=1, keepdims=True))]
        counts.append(settings.regions)
    stacked = np.asarray(regions, np.float16).reshape(-1, whole.shape[1])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return table(
        {"photo": photos, "descriptor": whole.astype(np.float32), "regions": Ragged(stacked, offsets)}
    )


def nothing_verified(ranked):
    step = Step(
        name="unverified",
        folder="verified",
        make=nothing_verified_shard,
        settings=Settings(),
        inputs={"ranked": Each(ranked.step)},
        shards=ranked.step.shards,
        cost=cost(ranked.queries, 40.0),
    )
    return Ranked(step, 2)


def nothing_verified_shard(shard, settings, *, ranked):
    queries = read_ranking(ranked, shard).queries
    return table(
        {
            "query": queries,
            "photos": np.full((len(queries), 2), -1, np.int32),
            "scores": np.zeros((len(queries), 2), np.float32),
            "inliers": np.zeros((len(queries), 2), np.int32),
            "confident": np.zeros(len(queries), np.int32),
            "background": np.ones(len(queries), np.float32),
        }
    )


def steps(gallery, queries, *, diffusion=None, columns=None, graph=None, **search):
    """Steps 3 to 5 of the retrieval workflow over given descriptors, by name."""
    neighbours = find_neighbours(gallery, NeighbourSettings(**{"neighbours": 12, **search}))
    averaged = augment(gallery, neighbours, AugmentSettings())
    search.pop("neighbours", None)
    settings = RankSettings(**search)
    augmented = searchable(averaged, settings)
    ranked = rank(queries, augmented, settings)
    expanded = expand(queries, ranked, nothing_verified(ranked), augmented, ExpandSettings())
    regions = region_graph(gallery, graph or GraphSettings(neighbours=10))
    both = Both(gallery, queries)
    solved = solve_columns(both, neighbours, columns or ColumnSettings(neighbours=10))
    final = diffuse(both, regions, solved, expanded, augmented, diffusion or DiffuseSettings())
    return {
        "neighbours": neighbours.step,
        "augmented": averaged.source,
        "ranked": ranked.step,
        "expanded": expanded.step,
        "reduced": regions.nodes.source,
        "columns": solved.step,
        "final": final.step,
    }


def rows_of(step: Step, root: str, name: str) -> np.ndarray:
    """One column of all shards; a list column as its values."""
    dataset: Dataset = step.dataset(root)
    parts = [dataset.read(i, [name]) for i in range(dataset.shards)]
    return np.concatenate([column(part, name) for part in parts])
