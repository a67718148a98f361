"""Refinement: the first photos of the last list are compared with each other, and ranked anew.

It is off by default. The step comes after diffusion, and is not there at all where `method` is "none".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr.errors import SettingsError
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.refinement import (
    embedded_scores,
    inlier_similarities,
    k_reciprocal_scores,
    max_pooled_scores,
    with_refined,
)
from lmr.runtime.settings import Part, Settings
from lmr.runtime.steps import Cost, Each, Source, Step, Whole
from lmr.steps.both import Both
from lmr.steps.features.columns import Described
from lmr.steps.features.local import Extracted
from lmr.steps.global_search.knn_graph import KnnGraph
from lmr.steps.groups.candidates import PairSettings, gallery_pairs
from lmr.steps.ranking import Ranked, Ranking, pair_keys, ranking_bytes, read_ranking
from lmr.steps.verification.rerank import inliers_of
from lmr.steps.verification.verify import VerifySettings, verify
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = [
    "RefineSettings",
    "Rescored",
    "by_descriptors",
    "by_inliers",
    "gallery_links",
    "refine",
    "refine_shard",
]

Rescored = Callable[[int, NDArray[np.int32]], NDArray[np.float64]]
"""Scores of some gallery photos for a query, by its place in the shard."""


@dataclass(frozen=True, kw_only=True)
class RefineSettings(Settings):
    """Settings of `refine`: the first photos of the last list, ranked anew by each other."""

    method: Literal["none", "k-reciprocal", "superglobal", "embedding"] = "none"
    """By neighbours that photos share (Zhong et al.), by descriptors refined with each other (Shao et al.),
    by embeddings of local similarities (Aiger et al.), or not at all."""
    depth: Annotated[int, Ge(1), Le(1_000)] = 100
    """The first photos of a list that are ranked anew; the others stay behind them."""
    weight: Annotated[float, Ge(0), Le(1_000)] | None = 0.03
    """Weight of a refined score, in standard deviations over the list, against the list's own scores; none:
    the refined scores alone. Confident matches keep the head."""
    neighbours: Annotated[int, Ge(1), Le(10_000)] = 20
    """Nearest photos that each gallery photo is verified with for `method` "embedding", at most those of the
    kNN graph."""


def gallery_links(
    graph: KnnGraph,
    local: Extracted,
    images: Source,
    settings: RefineSettings,
    verify_settings: VerifySettings,
    overlays: Step | None = None,
) -> Step | None:
    """Declare the verification of neighbours in the gallery; None where no method needs it.

    Columns are those of `verify`; `query` is a row of the gallery here, and every pair stands once.

    Parameters
    ----------
    graph
        The nearest photos of each.
    local, images
        The gallery's local features and photos.
    settings
        The settings.
    verify_settings
        How a pair is verified.
    overlays
        Features that are left out; None leaves none out.
    """
    if settings.method != "embedding":
        return None
    pairs = gallery_pairs(graph, PairSettings(neighbours=settings.neighbours))
    step = verify(pairs, Both(local, local), Both(images, images), verify_settings, overlays)
    return replace(step, name="verify_gallery", folder="gallery_links")


def refine(
    described: Both[Described] | None,
    ranked: Ranked,
    expanded: Ranked,
    pairs: Step | None,
    links: Step | None,
    settings: RefineSettings,
) -> Ranked:
    """Declare the refinement of a list; the list itself where `method` is "none".

    Parameters
    ----------
    described
        Global descriptors; None where the workflow has none.
    ranked
        The list.
    expanded
        The ranking of step 4, which says how many photos at the head are confident matches.
    pairs
        Verified pairs of queries and gallery, for `method` "embedding"; those that were not verified count as
        pairs without an inlier.
    links
        What `gallery_links` has declared.
    settings
        The settings.

    Raises
    ------
    SettingsError
        If the workflow lacks what the method compares.
    """
    if settings.method == "none":
        return ranked
    depth = min(settings.depth, ranked.depth)
    each = ranked.per_shard
    inputs: dict[str, Each | Whole] = {"ranked": Each(ranked.step), "expanded": Each(expanded.step)}
    if settings.method == "embedding":
        if pairs is None or links is None:
            raise _lacking("verified pairs", settings)
        inputs |= {"verified": Whole(pairs), "links": Whole(links)}
        known = min(links.rows, each * depth * settings.neighbours)
        # Which of all pairs are of the shard's queries and photos, those that are, and the lists' inliers.
        held = 4.0 * (pairs.rows + links.rows) + 80.0 * known + 60.0 * each * ranked.depth
        mapped = 12.0 * (pairs.rows + links.rows)
    else:
        if described is None:
            raise _lacking("global descriptors", settings)
        inputs |= {"described": Each(described.queries.source), "gallery": Whole(described.gallery.source)}
        dimension = described.queries.dimension
        held = each * 8.0 * dimension + 5.0 * 8.0 * (depth + 1) * dimension
        mapped = 2.0 * described.gallery.rows * dimension
    step = Step(
        name="refine",
        folder="refined",
        make=refine_shard,
        settings=settings.only("method", "depth", "weight"),
        inputs=inputs,
        shards=ranked.step.shards,
        role="queries",
        cost=Cost(
            rows=ranked.queries,
            bytes_per_row=ranking_bytes(ranked.depth),
            # Besides: the lists as read, made and written, and one query's tables of all its pairs.
            task_bytes=held + each * 6.0 * ranking_bytes(ranked.depth) + 12.0 * 8.0 * (depth + 1) ** 2,
            work=ranked.queries,
            unit="vector",
            mapped_bytes=mapped,
        ),
    )
    return Ranked(step, ranked.depth)


def refine_shard(
    shard: int,
    settings: Part,
    *,
    ranked: Dataset,
    expanded: Dataset,
    described: Dataset | None = None,
    gallery: Dataset | None = None,
    verified: Dataset | None = None,
    links: Dataset | None = None,
) -> pa.Table:
    """Rank the first photos of the queries of one shard anew."""
    before = read_ranking(ranked, shard)
    confident = column(expanded.read(shard, ["confident"]), "confident")
    if verified is not None and links is not None:
        rescored = by_inliers(_cut(before, settings.depth), verified, links)
    else:
        assert described is not None
        assert gallery is not None
        queries = to_float(column(described.read(shard, ["descriptor"]), "descriptor"))
        rescored = by_descriptors(queries, stack(gallery, "descriptor"), settings.method)
    photos, scores = before.photos.copy(), before.scores.copy()
    for q, listed in enumerate(before.photos):
        first = listed[: settings.depth]
        first = first[first >= 0]
        own, refined = before.scores[q, : len(first)], rescored(q, first)
        total = refined if settings.weight is None else with_refined(own, refined, settings.weight)
        head = min(int(confident[q]), len(first))
        rest = head + np.argsort(-total[head:], kind="stable")
        order = np.concatenate([np.arange(head), rest])
        photos[q, : len(first)] = first[order]
        if settings.weight is None:
            scores[q] = np.where(photos[q] >= 0, 1 - np.arange(len(listed)) / len(listed), 0)
        else:
            scores[q, : len(first)] = total[order]
    return Ranking(before.queries, photos, scores).table()


def by_descriptors(queries: NDArray[np.float32], gallery: NDArray[Any], method: str) -> Rescored:
    """Return what scores photos by global descriptors; a query without one scores all the same.

    Parameters
    ----------
    queries
        (q, d) unit rows, or zeros.
    gallery
        (n, d) float16 unit rows, or zeros; may be mapped.
    method
        "k-reciprocal" or "superglobal".
    """

    def rescored(query: int, photos: NDArray[np.int32]) -> NDArray[np.float64]:
        own, candidates = queries[query], to_float(gallery[photos])
        if not own.any():
            return np.zeros(len(photos))
        if method == "superglobal":
            return max_pooled_scores(own, candidates)
        rows = np.concatenate([own[None], candidates]).astype(np.float64)
        return k_reciprocal_scores(rows @ rows.T)

    return rescored


def by_inliers(lists: Ranking, verified: Dataset, links: Dataset) -> Rescored:
    """Return what scores photos by embeddings of inliers; a query without any inlier scores all the same.

    Parameters
    ----------
    lists
        The lists whose first photos are scored.
    verified
        Pairs of queries and gallery photos, of `verify`.
    links
        Pairs of gallery photos, of `gallery_links`.
    """
    asked = inlier_similarities(inliers_of(lists, verified))
    known, similarity = _links_among(lists.photos, links)

    def rescored(query: int, photos: NDArray[np.int32]) -> NDArray[np.float64]:
        own = asked[query, : len(photos)]
        if not own.any():
            return np.zeros(len(photos))
        local = np.eye(len(photos) + 1)
        local[0, 1:] = local[1:, 0] = own
        pairs = pair_keys(np.minimum.outer(photos, photos), np.maximum.outer(photos, photos))
        if len(known):
            at = np.searchsorted(known, pairs).clip(max=len(known) - 1)
            local[1:, 1:] += np.where(known[at] == pairs, similarity[at], 0)
        return embedded_scores(local)

    return rescored


def _links_among(listed: NDArray[np.int32], links: Dataset) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the gallery's pairs of photos that stand in lists, as sorted keys, and their similarities."""
    one, other, inliers = (stack(links, name) for name in ("query", "photo", "inliers"))
    there = np.zeros(int(listed.max(initial=0)) + 1, np.bool_)
    there[listed[listed >= 0]] = True
    inside = (one < len(there)) & (other < len(there))
    inside[inside] = there[one[inside]] & there[other[inside]]
    kept = np.flatnonzero(inside)
    pairs = pair_keys(np.minimum(one[kept], other[kept]), np.maximum(one[kept], other[kept]))
    order = np.argsort(pairs, kind="stable")
    return pairs[order], inlier_similarities(inliers[kept[order]])


def _cut(lists: Ranking, depth: int) -> Ranking:
    return Ranking(lists.queries, lists.photos[:, :depth], lists.scores[:, :depth])


def _lacking(what: str, settings: RefineSettings) -> SettingsError:
    return SettingsError(
        f"refine.method compares {what}, and this workflow has none",
        got=f'refine.method = "{settings.method}"',
        fix='give a workflow that makes them, such as retrieval, or refine.method = "none"',
    )
