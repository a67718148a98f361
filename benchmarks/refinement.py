"""Re-ranking of candidates by each other, on the development photos: mAP@100 before and after, and its time.

    python benchmarks/refinement.py --out FOLDER [--variant lite0] [--depth 100]

Takes the rankings of a run that `benchmarks/landmarks.py --out FOLDER` has made (what is missing is made).
Each way ranks the first `--depth` photos of each query anew: after step 3, where descriptors alone stand, and
in the end, where it is added to the scores with the weight that does best on the other four fifths of the
landmarks (cross-validation over queries by landmark). Confident matches keep the head in the end.

Weights are those of `refine.weight`. Similarity embeddings compare inliers of the query with its candidates,
and of candidates with their 20 nearest by descriptor. The latter pairs are verified for this alone.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from _development import VARIANTS, development_inputs, mean_error, scored
from _shared import shared

from lmr.evaluation.protocols.scorers import map_at_100
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.refinement import with_refined
from lmr.scheduler.run import run
from lmr.steps.global_search.knn_graph import NeighbourSettings, find_neighbours
from lmr.steps.ranking import Ranking, read_ranking
from lmr.steps.refinement import RefineSettings, Rescored, by_descriptors, by_inliers, gallery_links
from lmr.steps.results.scores import read_solution
from lmr.steps.workflow import Workflow
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack
from workflows import retrieval

Floats = NDArray[np.float64]
Linked = Callable[[Ranking], Rescored]
"""What scores the photos of some lists."""

WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)
FOLDS = 5


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, help="the folder of the runs")
    parser.add_argument("--variant", choices=list(VARIANTS), default="lite0")
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--embed", action="store_true", help="similarity embeddings too: verifies pairs")
    options = parser.parse_args()
    variant = VARIANTS[options.variant]
    flow = retrieval.build(development_inputs(variant), variant.settings())
    before = scored(flow, options.out)
    assert flow.described is not None
    assert flow.verified is not None
    queries = to_float(np.asarray(stack(flow.described.queries.source.dataset(options.out), "descriptor")))
    gallery = np.asarray(stack(flow.described.gallery.source.dataset(options.out), "descriptor"))

    ways: dict[str, Linked] = {
        "k-reciprocal": lambda lists: by_descriptors(queries, gallery, "k-reciprocal"),
        "SuperGlobal": lambda lists: by_descriptors(queries, gallery, "superglobal"),
    }
    if options.embed:
        ways["similarity embeddings"] = embedded(flow, variant.settings(), options.out)
    names = [flow.inputs.photos.queries.ids, flow.inputs.photos.gallery.ids]
    truth = read_solution(str(shared("data/landmarks") / "retrieval_solution.csv"))
    rights = [truth.get(name, []) for name in names[0]]
    asked = [query for query, right in enumerate(rights) if right]
    folds = folds_of([names[0][query] for query in asked])

    def precision(query: int, photos: NDArray[np.int32]) -> float:
        listed = [names[1][photo] for photo in photos if photo >= 0]
        return float(map_at_100({"it": listed}, {"it": rights[query]}).mean)

    table = Table(title=f"mAP@100 ± standard error over {len(asked)} queries; differences paired")
    for name in ("", "after step 3", "difference", "in the end", "difference", "weights", "ms per query"):
        table.add_column(name, justify="right" if name else "left")
    plain = {stage: np.array(before[stage]) for stage in ("rank", "diffuse")}
    table.add_row("as it is", told(plain["rank"]), "", told(plain["diffuse"]), "", "", "")
    figures: dict[str, dict[str, object]] = {}
    for way, linked in ways.items():
        ranks, ends = [], []
        listed = first_of(flow.rankings["rank"].step.dataset(options.out))
        final = first_of(flow.rankings["diffuse"].step.dataset(options.out))
        confident = column(flow.rankings["expand"].step.dataset(options.out).read(0), "confident")
        spent, rescored = time.process_time(), linked(listed)
        for query in asked:
            photos = listed.photos[query, : options.depth]
            again = photos[np.argsort(-rescored(query, photos), kind="stable")]
            ranks.append(precision(query, np.concatenate([again, listed.photos[query, options.depth :]])))
        seconds = (time.process_time() - spent) / len(asked)
        rescored = linked(final)
        for query in asked:
            photos = final.photos[query, : options.depth]
            photos, kept = photos[photos >= 0], final.scores[query, : np.count_nonzero(photos >= 0)]
            more = rescored(query, photos)
            head = min(int(confident[query]), len(photos))
            ends.append(
                [precision(query, with_head(photos, with_refined(kept, more, w), head)) for w in WEIGHTS]
            )
        chosen, by_query = cross_validated(np.array(ends), folds)
        more_rank, more_end = np.array(ranks) - plain["rank"], by_query - plain["diffuse"]
        figures[way] = {
            "rank": mean_error(np.array(ranks)),
            "rank_paired": mean_error(more_rank),
            "end": mean_error(by_query),
            "end_paired": mean_error(more_end),
            "weights": chosen,
            "by_weight": dict(
                zip(map(str, WEIGHTS), np.array(ends).mean(axis=0).round(4).tolist(), strict=True)
            ),
            "ms_per_query": round(1e3 * seconds, 2),
        }
        table.add_row(
            *(way, told(np.array(ranks)), told(more_rank), told(by_query), told(more_end)),
            *(" ".join(map(str, chosen)), f"{1e3 * seconds:.1f}"),
        )
    Console(width=140).print(table)
    print(json.dumps(figures))


def first_of(ranking: Dataset) -> Ranking:
    """Read a ranking of one shard."""
    assert ranking.shards == 1
    return read_ranking(ranking, 0)


def with_head(photos: NDArray[np.int32], scores: Floats, head: int) -> NDArray[np.int32]:
    """Order photos by their scores, but for the first ones."""
    rest = head + np.argsort(-scores[head:], kind="stable")
    return np.concatenate([photos[:head], photos[rest]])


def told(values: Floats) -> str:
    """Return a mean with its standard error."""
    mean, error = mean_error(values)
    return f"{mean:.3f} ± {error:.3f}"


def folds_of(queries: list[str]) -> NDArray[np.int64]:
    """Return the fifth that each query belongs to; those of one landmark belong together."""
    with open(shared("data/landmarks") / "photos.csv") as file:
        landmark = {row["id"]: row["landmark"] for row in csv.DictReader(file)}
    groups = np.unique([landmark[query] for query in queries], return_inverse=True)[1]
    fold = np.random.default_rng(0).permutation(groups.max() + 1) % FOLDS
    return np.asarray(fold[groups], np.int64)


def cross_validated(by_weight: Floats, folds: NDArray[np.int64]) -> tuple[list[float], Floats]:
    """Return the weight chosen without each fifth, and each query's score with the weight of its fifth."""
    chosen, scores = [], np.zeros(len(by_weight))
    for fold in range(FOLDS):
        best = int(by_weight[folds != fold].mean(axis=0).argmax())
        chosen.append(WEIGHTS[best])
        scores[folds == fold] = by_weight[folds == fold, best]
    return chosen, scores


def embedded(flow: Workflow, settings: retrieval.RetrievalSettings, root: str) -> Linked:
    """Verify neighbours in the gallery, and return what scores lists by embeddings of inliers."""
    assert flow.described is not None
    assert flow.local is not None
    assert flow.images is not None
    assert flow.verified is not None
    graph = find_neighbours(flow.described.gallery, NeighbourSettings())
    links = gallery_links(
        graph,
        flow.local.gallery,
        flow.images.gallery,
        RefineSettings(method="embedding"),
        settings.verify,
    )
    assert links is not None
    spent = time.process_time()
    run([links], root)
    seconds = time.process_time() - spent
    print(f"verified {links.rows} pairs of the gallery at most: {seconds:.0f} s", file=sys.stderr)
    asked = flow.verified.pairs.dataset(root)
    return lambda lists: by_inliers(lists, asked, links.dataset(root))


if __name__ == "__main__":
    main()
