"""Local search at size: recall of the true photos and time against exhaustive search of the same descriptors.

    python benchmarks/local_search.py --descriptors 1000000 10000000

The development photos (RootSIFT) are the gallery's first descriptors. It is filled up with synthetic photos:
each of their descriptors is a real one of the gallery moved by 0.36, as far as a real feature's nearest
neighbours are, so that lists are as uneven as with real photos and every query feature has near neighbours
of no meaning. The same features of the same queries go through voting (each code and number of probes),
through ASMK, and through an exhaustive search whose neighbours vote alike, on the same number of threads.

Times of searches are processor time, summed over threads, of the median of three searches (exhaustive: one):
what a query costs, and steadier than the clock on a shared machine. The projection to 1e9 descriptors takes
the time per visited list and per compared code from two sub-indexes of this run. It projects cost only:
recall at 1e9 is not known from here.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np
from _shared import shared
from numpy.typing import NDArray

from lmr.evaluation.kaggle import read_solution
from lmr.evaluation.scorers import map_at_100
from lmr.features.decode import decode_photo
from lmr.features.rootsift import RootSift
from lmr.retrieval.asmk import aggregate, build_asmk, random_rotation, search_asmk
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.index import (
    SAMPLE_PER_CENTROID,
    build_index,
    default_lists,
    open_index,
    search_index,
    train_centroids,
    train_quantiser,
)
from lmr.retrieval.vote import vote

Floats = NDArray[np.float32]
MOVED_BY = 0.36
GIB = 2.0**30


def features_of(folder: Path, names: list[str], features: int) -> tuple[Floats, NDArray[np.int64]]:
    """Extract unit RootSIFT of photos; return the descriptors and the photo number of each."""
    extractor = RootSift(max_features=features)
    tables = [extractor([decode_photo((folder / f"{n}.jpg").read_bytes())])[0].descriptor for n in names]
    photos = np.repeat(np.arange(len(names)), [len(t) for t in tables])
    return to_float(np.concatenate(tables)), photos


def synthetic(real: Floats, first_row: int, count: int, features: int) -> tuple[Floats, NDArray[np.int64]]:
    """Make `count` descriptors of photos with `features` each, the first photo at gallery row `first_row`."""
    rng = np.random.default_rng(first_row)
    noise = rng.standard_normal((count, real.shape[1]), np.float32)
    noise *= MOVED_BY / np.linalg.norm(noise, axis=1, keepdims=True)
    noise += real[rng.integers(0, len(real), count)]
    np.maximum(noise, 0, out=noise)  # RootSIFT is never negative
    return to_float(noise), first_row + np.arange(count) // features


def blocks(
    real: Floats, rows: NDArray[np.int64], total: int, size: int, features: int
) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
    """Yield the gallery in groups of whole photos: the real ones, then synthetic ones."""
    first = real[:total], rows[:total]
    yield first
    have, row = len(first[0]), int(rows.max()) + 1
    while have < total:
        count = min(size, total - have)
        yield synthetic(real, row, count, features)
        have, row = have + count, row - (-count // features)


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[Any, float]:
    """Return what `work` returns and the median of its processor seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return result, statistics.median(seconds)


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Queries:
    """The queries with right photos, their features, and the scores of a ranking."""

    def __init__(self, folder: Path, gallery: list[str], count: int, features: int) -> None:
        answers = {q: a for q, a in read_solution(str(folder / "retrieval_solution.csv")).items() if a}
        names = sorted(answers)
        self.names = [names[i] for i in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]
        self.answers = {name: answers[name] for name in self.names}
        self.gallery = gallery
        self.descriptors, self.query_of_feature = features_of(folder / "query", self.names, features)

    def vote(self, neighbours: tuple[Floats, NDArray[np.int32]]) -> NDArray[np.int32]:
        return vote(self.query_of_feature, *neighbours, n_queries=len(self.names))[0]

    def score(self, rows: NDArray[np.int32]) -> dict[str, float]:
        """Return recall@100 of the true photos, the mean over queries, and mAP@100."""
        ids = {
            name: [self.gallery[r] if r < len(self.gallery) else f"synthetic {r}" for r in ranked if r >= 0]
            for name, ranked in zip(self.names, rows, strict=True)
        }
        recalls = [len(set(ids[q]) & set(a)) / len(a) for q, a in self.answers.items()]
        found = map_at_100(ids, self.answers).mean
        return {"recall_at_100": round(statistics.mean(recalls), 4), "map_at_100": round(float(found), 4)}


def exhaustive(
    queries: Queries, groups: Iterator[tuple[Floats, NDArray[np.int64]]], k: int
) -> dict[str, Any]:
    """Compare every query feature with every gallery descriptor, group by group."""
    n = len(queries.descriptors)
    best, best_rows, seconds = np.full((n, k), np.inf, np.float32), np.full((n, k), -1, np.int32), 0.0
    for descriptors, rows in groups:

        def search(descriptors: Floats = descriptors) -> tuple[Floats, NDArray[np.int64]]:
            return faiss.knn(queries.descriptors, descriptors, k)

        (distances, numbers), spent = timed(search)
        seconds += spent
        distances = np.concatenate([best, distances], axis=1)
        merged = np.concatenate([best_rows, rows[numbers].astype(np.int32)], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        best, best_rows = np.take_along_axis(distances, order, 1), np.take_along_axis(merged, order, 1)
    ranked, spent = timed(lambda: queries.vote((best, best_rows)))
    return {"ms_per_query": 1e3 * (seconds + spent) / len(queries.names), **queries.score(ranked)}


def search_cost(path: Path, queries: Queries, k: int, probes: int) -> tuple[float, float, float]:
    """Return processor seconds, visited lists and compared codes of a search of one sub-index, one thread."""

    def search() -> None:
        faiss.cvar.indexIVF_stats.reset()
        search_index([open_index(path)], queries.descriptors, k=k, probes=probes)

    _, seconds = timed(search, 3)
    return seconds, faiss.cvar.indexIVF_stats.nlist, faiss.cvar.indexIVF_stats.ndis


def voting(
    arguments: argparse.Namespace,
    queries: Queries,
    real: Floats,
    total: int,
    code_bytes: int | None,
    groups: Any,
) -> dict[str, Any]:
    """Index the gallery, search it by voting, and project the cost to 1e9 descriptors."""
    lists, k, threads = default_lists(total), arguments.neighbours, arguments.threads
    rng = np.random.default_rng(arguments.seed)
    sample = real[rng.choice(len(real), min(SAMPLE_PER_CENTROID * lists, len(real)), replace=False)]
    trained, train_s = timed(
        lambda: train_quantiser(sample, lists=lists, code_bytes=code_bytes, seed=arguments.seed)
    )
    report: dict[str, Any] = {"lists": lists, "train_s": round(train_s, 1), "probes": {}}
    with tempfile.TemporaryDirectory() as folder:
        paths, build_s = [], 0.0
        for descriptors, rows in groups():

            def build(descriptors: Floats = descriptors, rows: NDArray[np.int64] = rows) -> bytes:
                return build_index(trained, descriptors, rows)

            built, spent = timed(build)
            build_s += spent
            paths.append(Path(folder) / f"{len(paths)}.faiss")
            paths[-1].write_bytes(built)
        stored = sum(p.stat().st_size for p in paths)
        report |= {
            "sub_indexes": len(paths),
            "build_s": round(build_s, 1),
            "bytes_per_descriptor": round((stored - len(paths) * len(trained)) / total, 2),
            "stored_mib": round(stored / 2**20, 1),
        }
        for probes in arguments.probes:

            def search(probes: int = probes) -> NDArray[np.int32]:
                indexes = (open_index(p) for p in paths)
                return queries.vote(
                    search_index(indexes, queries.descriptors, k=k, probes=probes, threads=threads)
                )

            ranked, seconds = timed(search, 3)
            found = {"ms_per_query": round(1e3 * seconds / len(queries.names), 2), **queries.score(ranked)}
            report["probes"][probes] = found
            print(f"  voting, {probes:4d} probes: {found}", flush=True)
        # Seconds of a search = a * visited lists + b * compared codes: two sub-indexes give a and b.
        little = Path(folder) / "little.faiss"
        little.write_bytes(build_index(trained, sample[: 2 * lists], np.arange(min(2 * lists, len(sample)))))
        probes = arguments.probes[0]
        costs = [search_cost(path, queries, k, probes) for path in (little, paths[0])]
        per_list, per_code = np.linalg.solve([c[1:] for c in costs], [c[0] for c in costs])
        uneven = costs[1][2] / (len(queries.descriptors) * probes * min(len(real), total) / lists)
    report["projection"] = project(arguments, max(per_list, 0.0), per_code, uneven, code_bytes, real.shape[1])
    return report


def project(
    arguments: argparse.Namespace,
    per_list: float,
    per_code: float,
    uneven: float,
    code_bytes: int | None,
    d: int,
) -> dict[str, Any]:
    """Print and return what 100,000 queries on 1e9 descriptors cost, by arithmetic."""
    total, features, n_queries, groups, probes = 10**9, 1000, 100_000, 8, arguments.probes[0]
    lists = default_lists(total)
    codes = probes * total / lists * uneven
    feature_s = groups * probes * per_list + codes * per_code
    core_hours = feature_s * features * n_queries / 3600
    machines, cores, usd = 10, 48, 4.6
    hours = core_hours / (machines * cores)
    gib = total * ((code_bytes or d) + 8) / GIB + groups * lists * d * 4 / GIB
    print(
        f"  projection to 1e9: {lists} lists, {groups} sub-indexes, {gib:.0f} GiB; {probes} probes compare"
        f" {codes:,.0f} codes a feature (lists {uneven:.2f} × their mean, as here) at {1e9 * per_code:.2f} ns"
        f" and visit {groups * probes} lists at {1e6 * per_list:.2f} us: {1e3 * feature_s:.2f} ms a feature;"
        f" {features} features × {n_queries:,} queries: {core_hours:,.0f} core-hours, {hours:.2f} h on"
        f" {machines} machines of {cores} cores, {hours * machines * usd:.1f} USD at {usd} a machine-hour."
        " Assumed: this machine's core, the index in the page cache, time linear in lists and codes, and all"
        " cores busy."
    )
    return {
        "gib": round(gib, 1),
        "codes_per_feature": round(codes),
        "ns_per_code": round(1e9 * per_code, 3),
        "us_per_list": round(1e6 * per_list, 3),
        "ms_per_query_and_core": round(1e3 * feature_s * features, 1),
        "core_hours_100k_queries": round(core_hours, 1),
        "usd_100k_queries": round(hours * machines * usd, 2),
    }


def asmk(
    arguments: argparse.Namespace, queries: Queries, real: Floats, total: int, groups: Any
) -> dict[str, Any]:
    """Aggregate and search the same gallery by ASMK, published setting, signs after a random rotation."""
    words, threads = arguments.words, arguments.threads
    centroids, train_s = timed(lambda: train_centroids(real, words, seed=arguments.seed))
    rotation = random_rotation(real.shape[1], seed=arguments.seed)
    indexes, build_s = [], 0.0
    for descriptors, rows in groups():

        def build(descriptors: Floats = descriptors, rows: NDArray[np.int64] = rows) -> Any:
            part = aggregate(descriptors, rows, centroids, rotation=rotation, threads=threads)
            return build_asmk(part, n_words=words)

        index, spent = timed(build)
        build_s += spent
        indexes.append(index)

    def search() -> NDArray[np.int32]:
        part = aggregate(
            queries.descriptors,
            queries.query_of_feature,
            centroids,
            words_per_descriptor=5,
            rotation=rotation,
            threads=threads,
        )
        return search_asmk(indexes, part, n_queries=len(queries.names))[0]

    search()  # compiles
    ranked, seconds = timed(search, 3)
    stored = sum(i.codes.nbytes + i.photos.nbytes for i in indexes)
    return {
        "words": words,
        "train_s": round(train_s, 1),
        "build_s": round(build_s, 1),
        "bytes_per_descriptor": round(stored / total, 2),
        "ms_per_query": round(1e3 * seconds / len(queries.names), 2),
        **queries.score(ranked),
    }


def at_size(
    arguments: argparse.Namespace, queries: Queries, real: Floats, rows: Any, total: int
) -> dict[str, Any]:
    """Run everything at one size of the gallery."""
    print(
        f"{total:,} descriptors, {len(queries.descriptors):,} features of {len(queries.names)} queries",
        flush=True,
    )

    def groups() -> Iterator[tuple[Floats, NDArray[np.int64]]]:
        return blocks(real, rows, total, arguments.sub_index, arguments.features)

    report: dict[str, Any] = {"descriptors": total}
    for code in arguments.codes:
        name = f"pq{code}" if code else "sq8"
        report[name] = voting(arguments, queries, real, total, code or None, groups)
        print(
            f"  {name}: { {k: v for k, v in report[name].items() if k not in ('probes', 'projection')} }",
            flush=True,
        )
    report["asmk"] = asmk(arguments, queries, real, total, groups)
    print(f"  ASMK: {report['asmk']}", flush=True)
    report["exhaustive"] = exact = exhaustive(queries, groups(), arguments.neighbours)
    exact["ms_per_query"] = round(exact["ms_per_query"], 1)
    print(f"  exhaustive, voting alike: {exact}", flush=True)
    report["ratios"] = {f"asmk {arguments.words} words": ratio(report["asmk"], exact)}
    for code in arguments.codes:
        name = f"pq{code}" if code else "sq8"
        for probes, found in report[name]["probes"].items():
            report["ratios"][f"{name} {probes} probes"] = ratio(found, exact)
    for name, compared in report["ratios"].items():
        print(f"  {name}: {compared}")
    report["peak_gib"] = round(peak_gib(), 2)
    print(f"  peak memory of this process {report['peak_gib']} GiB", flush=True)
    return report


def ratio(found: Mapping[str, Any], exact: Mapping[str, Any]) -> dict[str, float]:
    return {
        "times_faster": round(exact["ms_per_query"] / found["ms_per_query"], 1),
        "recall_of_exhaustive": round(found["recall_at_100"] / exact["recall_at_100"], 4),
    }


def main() -> None:
    """Run the sizes asked for; the last line is JSON."""
    parser = argparse.ArgumentParser(description="Local search against exhaustive search.")
    parser.add_argument(
        "--descriptors", type=int, nargs="+", default=[1_000_000], help="sizes of the gallery"
    )
    parser.add_argument(
        "--codes", type=int, nargs="+", default=[16, 0], help="bytes of PQ codes; 0: 8-bit scalars"
    )
    parser.add_argument("--probes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--neighbours", type=int, default=20)
    parser.add_argument("--words", type=int, default=4096, help="codebook of ASMK")
    parser.add_argument("--queries", type=int, default=24, help="at most the 99 with right photos")
    parser.add_argument("--features", type=int, default=500, help="per photo")
    parser.add_argument(
        "--sub-index", type=int, default=2_000_000, help="synthetic descriptors in a sub-index"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(arguments.threads)
    folder = shared("data/landmarks")
    gallery = sorted(path.stem for path in (folder / "gallery").glob("*.jpg"))
    queries = Queries(folder, gallery, arguments.queries, arguments.features)
    (real, rows), seconds = timed(lambda: features_of(folder / "gallery", gallery, arguments.features))
    print(f"{len(real):,} real descriptors of {len(gallery)} photos in {seconds:.0f} s", flush=True)
    sizes = [at_size(arguments, queries, real, rows, total) for total in arguments.descriptors]
    print(json.dumps({"threads": arguments.threads, "neighbours": arguments.neighbours, "sizes": sizes}))


if __name__ == "__main__":
    main()
