"""Local search at size: recall of the true photos and time against exhaustive search of the same descriptors.

    python benchmarks/local_search.py --descriptors 1000000 10000000 --codes 16 --threads 2

The development photos (RootSIFT) are the gallery's first descriptors. It is filled up with synthetic photos:
each of their descriptors is a real one of the gallery moved by 0.36, as far as a real feature's nearest
neighbours are, so that lists are as uneven as with real photos and every query feature has near neighbours
of no meaning. They are made in blocks from a seed and never held together; all indexes are built, and the
exhaustive search is done, in one pass over the blocks. Indexes are written to disk and mapped, as in a run.

Times are processor time, summed over threads: what a query costs, and steadier than the clock on a shared
machine; of searches the median of three (exhaustive: one). At large sizes the exhaustive search takes
--exhaustive queries of the others; ratios of recall are over these. The projection to 1e9 descriptors takes
the time per visited list and per compared code from this run. It projects cost only: recall at 1e9 is not
known from here.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np
from _shared import shared
from numpy.typing import NDArray

from lmr.evaluation.protocols.scorers import map_at_100
from lmr.features.decoding import decode_photo
from lmr.features.local.rootsift import RootSift
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.local_search.asmk import AsmkPart, aggregate, random_rotation
from lmr.retrieval.local_search.asmk_index import AsmkIndex, asmk_norms, build_asmk, search_asmk
from lmr.retrieval.local_search.codebook import (
    SAMPLE_PER_CENTROID,
    default_words,
    open_codebook,
    train_codebook,
)
from lmr.retrieval.local_search.inverted_file import (
    build_sub_index,
    default_lists,
    open_index,
    search_sub_index,
    train_quantiser,
)
from lmr.retrieval.local_search.votes import vote
from lmr.steps.results.scores import read_solution

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
MOVED_BY = 0.36
GIB = 2.0**30
BILLION, FEATURES, QUERIES, SUB_INDEXES = 10**9, 1000, 100_000, 63
MACHINES, CORES, USD_PER_HOUR = 10, 48, 4.6


def features_of(folder: Path, names: list[str], features: int) -> tuple[NDArray[np.uint8], Ints]:
    """Extract RootSIFT of photos; return the stored descriptors and the photo number of each."""
    extractor = RootSift(max_features=features)
    tables = [extractor([decode_photo((folder / f"{n}.jpg").read_bytes())])[0].descriptor for n in names]
    photos = np.repeat(np.arange(len(names)), [len(t) for t in tables])
    return np.concatenate(tables), photos


def synthetic(real: Floats, first_row: int, count: int, features: int) -> tuple[Floats, Ints]:
    """Make `count` descriptors of photos with `features` each, the first photo at gallery row `first_row`."""
    rng = np.random.default_rng(first_row)
    noise = rng.standard_normal((count, real.shape[1]), np.float32)
    noise *= MOVED_BY / np.linalg.norm(noise, axis=1, keepdims=True)
    noise += real[rng.integers(0, len(real), count)]
    np.maximum(noise, 0, out=noise)  # RootSIFT is never negative
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return noise, first_row + np.arange(count) // features


def blocks(real: Floats, rows: Ints, total: int, size: int, features: int) -> Iterator[tuple[Floats, Ints]]:
    """Yield the gallery in groups of whole photos: the real ones, then synthetic ones."""
    yield real[:total], rows[:total]
    have, row = min(len(real), total), int(rows.max()) + 1
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


@dataclass
class Queries:
    """Queries with right photos, their features, and the scores of a ranking."""

    names: list[str]
    answers: dict[str, list[str]]
    gallery: list[str]
    descriptors: Floats
    query_of_feature: Ints

    def first(self, count: int) -> "Queries":
        """Return every n-th query, `count` in all."""
        chosen = np.unique(np.linspace(0, len(self.names) - 1, min(count, len(self.names))).astype(int))
        kept = np.isin(self.query_of_feature, chosen)
        return replace(
            self,
            names=[self.names[i] for i in chosen],
            descriptors=self.descriptors[kept],
            query_of_feature=np.searchsorted(chosen, self.query_of_feature[kept]),
        )

    def vote(self, neighbours: tuple[Floats, NDArray[np.int32]]) -> NDArray[np.int32]:
        return vote(self.query_of_feature, *neighbours, n_queries=len(self.names))[0]

    def score(self, rows: NDArray[np.int32], seconds: float) -> dict[str, float]:
        """Return recall@100 of the true photos, the mean over queries, mAP@100 and the cost of a query."""
        ids = {
            name: [self.gallery[r] if r < len(self.gallery) else f"synthetic {r}" for r in ranked if r >= 0]
            for name, ranked in zip(self.names, rows, strict=True)
        }
        recalls = [len(set(ids[q]) & set(self.answers[q])) / len(self.answers[q]) for q in self.names]
        found = map_at_100(ids, {q: self.answers[q] for q in self.names}).mean
        return {
            "queries": len(self.names),
            "ms_per_query": round(1e3 * seconds / len(self.names), 2),
            "recall_at_100": round(statistics.mean(recalls), 4),
            "map_at_100": round(float(found), 4),
        }


@dataclass
class Voting:
    """The inverted file with codes of one kind, a sub-index per block."""

    folder: Path
    trained: bytes
    train_s: float
    code_bytes: int
    build_s: float = 0.0
    paths: list[Path] = field(default_factory=list)

    def add(self, descriptors: Floats, rows: Ints) -> None:
        built, spent = timed(lambda: build_sub_index(self.trained, descriptors, rows))
        self.build_s += spent
        self.paths.append(self.folder / f"{len(self.paths)}.faiss")
        self.paths[-1].write_bytes(built)

    def facts(self, total: int) -> dict[str, Any]:
        stored = sum(path.stat().st_size for path in self.paths)
        return {
            "lists": open_index(self.trained).nlist,
            "sub_indexes": len(self.paths),
            "train_s": round(self.train_s, 1),
            "build_s": round(self.build_s, 1),
            "stored_mib": round(stored / 2**20, 1),
            "bytes_per_descriptor": round((stored - len(self.paths) * len(self.trained)) / total, 2),
        }

    def search(self, queries: Queries, probes: int, options: argparse.Namespace) -> dict[str, float]:
        def work() -> NDArray[np.int32]:
            opened = (open_index(path) for path in self.paths)
            neighbours = search_sub_index(
                opened, queries.descriptors, k=options.neighbours, probes=probes, threads=options.threads
            )
            return queries.vote(neighbours)

        return queries.score(*timed(work, 3))

    def cost(self, queries: Queries, sample: Floats, options: argparse.Namespace) -> dict[str, float]:
        """Divide the time of a search among finding the lists, visiting them and comparing codes.

        Seconds - those of finding the lists = a * lists visited + b * codes compared: a sub-index with two
        codes in a list and a full one give a and b.
        """
        probes, features = options.probes[0], len(queries.descriptors)
        little, full = self.folder / "little.faiss", open_index(self.paths[-1])
        few = sample[: 2 * full.nlist]
        little.write_bytes(build_sub_index(self.trained, few, np.arange(len(few))))
        _, finding = timed(lambda: full.quantizer.search(queries.descriptors, probes), 3)
        counts, seconds = [], []
        for path in (little, self.paths[-1]):
            index = open_index(path)

            def work(index: Any = index) -> None:
                faiss.cvar.indexIVF_stats.reset()
                search_sub_index([index], queries.descriptors, k=options.neighbours, probes=probes)

            seconds.append(timed(work, 3)[1] - finding)
            counts.append((faiss.cvar.indexIVF_stats.nlist, faiss.cvar.indexIVF_stats.ndis))
        per_list, per_code = np.linalg.solve(counts, seconds)
        return {
            "us_per_feature_finding_lists": 1e6 * finding / features,
            "us_per_list": 1e6 * max(per_list, 0.0),
            "ns_per_code": 1e9 * per_code,
            "uneven": counts[1][1] / (features * probes * full.ntotal / full.nlist),
        }


@dataclass
class Asmk:
    """The inverted file of ASMK, published setting, signs after a random rotation; a sub-index per block."""

    folder: Path
    codebook: Any
    train_s: float
    rotation: Floats
    threads: int
    build_s: float = 0.0
    stored: int = 0
    parts: list[AsmkIndex] = field(default_factory=list)

    def add(self, descriptors: Floats, rows: Ints) -> None:
        def work() -> AsmkIndex:
            part = self.aggregate(descriptors, rows)
            index = build_asmk(part, n_words=self.codebook.ntotal)
            return replace(index, norms=asmk_norms(index, None))

        index, spent = timed(work)
        self.build_s += spent
        mapped = {}
        for name, array in vars(index).items():
            path = self.folder / f"{len(self.parts)}-{name}.npy"
            np.save(path, array)
            mapped[name] = np.load(path, mmap_mode="r")
            self.stored += array.nbytes
        self.parts.append(AsmkIndex(**mapped))

    def aggregate(self, descriptors: Floats, photos: Ints, words: int = 1) -> AsmkPart:
        return aggregate(
            descriptors,
            photos,
            self.codebook,
            words_per_descriptor=words,
            rotation=self.rotation,
            threads=self.threads,
        )

    def facts(self, total: int) -> dict[str, Any]:
        return {
            "words": self.codebook.ntotal,
            "sub_indexes": len(self.parts),
            "train_s": round(self.train_s, 1),
            "build_s": round(self.build_s, 1),
            "stored_mib": round(self.stored / 2**20, 1),
            "bytes_per_descriptor": round(self.stored / total, 2),
        }

    def search(self, queries: Queries) -> dict[str, float]:
        part, aggregating = timed(lambda: self.aggregate(queries.descriptors, queries.query_of_feature, 5), 3)
        (rows, _), scoring = timed(lambda: search_asmk(self.parts, part, n_queries=len(queries.names)), 3)
        entries = sum(int(np.diff(index.starts)[part.words].sum()) for index in self.parts)
        return {
            **queries.score(rows, aggregating + scoring),
            "us_per_feature_for_the_words": round(1e6 * aggregating / len(queries.descriptors), 2),
            "ns_per_entry": round(1e9 * scoring / entries, 3),
            "entries_per_feature": round(entries / len(queries.descriptors)),
        }


class Exhaustive:
    """Every query feature compared with every gallery descriptor, block by block; the votes alike."""

    def __init__(self, queries: Queries, k: int) -> None:
        self.queries, self.k, self.seconds = queries, k, 0.0
        n = len(queries.descriptors)
        self.best, self.rows = np.full((n, k), np.inf, np.float32), np.full((n, k), -1, np.int32)

    def add(self, descriptors: Floats, rows: Ints) -> None:
        (distances, numbers), spent = timed(lambda: faiss.knn(self.queries.descriptors, descriptors, self.k))
        self.seconds += spent
        distances = np.concatenate([self.best, distances], axis=1)
        merged = np.concatenate([self.rows, rows[numbers].astype(np.int32)], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, : self.k]
        self.best, self.rows = np.take_along_axis(distances, order, 1), np.take_along_axis(merged, order, 1)

    def search(self) -> dict[str, float]:
        ranked, spent = timed(lambda: self.queries.vote((self.best, self.rows)))
        return self.queries.score(ranked, self.seconds + spent)


def project_voting(costs: dict[str, float], probes: int, code_bytes: int, d: int) -> dict[str, Any]:
    """Project the cost of voting to 1e9 descriptors, by arithmetic."""
    lists = default_lists(BILLION)
    codes = probes * BILLION / lists * costs["uneven"]
    # Finding the lists grows with the square root of their number: cells, here of fewer lists.
    microseconds = (
        3 * costs["us_per_feature_finding_lists"]
        + SUB_INDEXES * probes * costs["us_per_list"]
        + 1e-3 * codes * costs["ns_per_code"]
    )
    gib = (BILLION * ((code_bytes or d) + 8) + SUB_INDEXES * lists * d * 4) / GIB
    print(
        f"  projected to 1e9: {lists} lists in {SUB_INDEXES} sub-indexes, {gib:.0f} GiB; a feature finds its"
        f" {probes} lists in three times {costs['us_per_feature_finding_lists']:.0f} us, visits"
        f" {SUB_INDEXES * probes} at {costs['us_per_list']:.2f} us, and compares {codes:,.0f} codes (lists"
        f" {costs['uneven']:.2f} × their mean, as here) at {costs['ns_per_code']:.2f} ns"
    )
    return {"gib": round(gib, 1), "codes_per_feature": round(codes), **bill(1e-6 * microseconds * FEATURES)}


def project_asmk(found: dict[str, float], words: int, total: int, d: int) -> dict[str, Any]:
    """Project the cost of ASMK with 65,536 words to 1e9 descriptors, by arithmetic."""
    published = default_words(BILLION)
    entries = found["entries_per_feature"] * BILLION / total * words / published
    seconds = 1e-9 * entries * found["ns_per_entry"] + 1e-6 * found["us_per_feature_for_the_words"] * 2
    gib = BILLION * (-(-d // 32) * 4 + 4) / GIB
    print(
        f"  projected to 1e9: {published} words, at most {gib:.0f} GiB; {entries:,.0f} entries a feature at"
        f" {found['ns_per_entry']:.2f} ns, and finding the words takes twice as long as here"
    )
    return {"gib": round(gib, 1), "entries_per_feature": round(entries), **bill(seconds * FEATURES)}


def bill(seconds: float) -> dict[str, float]:
    """Return what 100,000 queries of 1000 features cost, given the seconds of one on one core."""
    core_hours = seconds * QUERIES / 3600
    hours = core_hours / (MACHINES * CORES)
    print(
        f"    {1e3 * seconds:,.0f} ms per query of {FEATURES} features and core; {QUERIES:,} queries:"
        f" {core_hours:,.1f} core-hours, {hours:.2f} h on {MACHINES} machines of {CORES} cores,"
        f" {hours * MACHINES * USD_PER_HOUR:.1f} USD at {USD_PER_HOUR} a machine-hour. Assumed: a core like"
        " this one, the index in the page cache, time linear in what is compared, all cores busy."
    )
    return {
        "ms_per_query_and_core": round(1e3 * seconds, 1),
        "core_hours_100k_queries": round(core_hours, 1),
        "usd_100k_queries": round(hours * MACHINES * USD_PER_HOUR, 2),
    }


def at_size(options: argparse.Namespace, queries: Queries, real: Floats, rows: Ints, total: int) -> Any:
    """Build everything in one pass over the gallery of one size, and search it."""
    some = queries.first(options.exhaustive)
    print(f"{total:,} descriptors; {len(queries.names)} queries, {len(some.names)} exhaustively", flush=True)
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(dir=options.scratch) as temporary:
        voters, lists = {}, min(default_lists(total), default_lists(10 * len(real)))
        sample = real[rng.permutation(len(real))[: SAMPLE_PER_CENTROID * lists]]
        for code in options.codes:
            name = f"pq{code}" if code else "sq8"
            (folder := Path(temporary) / name).mkdir()
            trained, spent = timed(
                lambda code=code: train_quantiser(
                    sample, lists=lists, code_bytes=code or None, seed=options.seed
                )
            )
            voters[name] = Voting(folder, trained, spent, code)
        exact = Exhaustive(some, options.neighbours)
        asmks = {}
        if options.words and total <= options.asmk_up_to:
            (folder := Path(temporary) / "asmk").mkdir()
            words, spent = timed(lambda: train_codebook(real, options.words, seed=options.seed))
            rotation = random_rotation(real.shape[1], seed=options.seed)
            asmks["asmk"] = Asmk(folder, open_codebook(words), spent, rotation, options.threads)
        done, started = 0, time.perf_counter()
        for descriptors, photos in blocks(real, rows, total, options.sub_index, options.features):
            for builder in (*voters.values(), *asmks.values(), exact):
                builder.add(descriptors, photos)
            done += len(descriptors)
            print(f"  {done:,} after {time.perf_counter() - started:.0f} s by the clock", flush=True)
        report: dict[str, Any] = {"descriptors": total, "exhaustive": exact.search()}
        print(f"  exhaustive, voting alike: {report['exhaustive']}", flush=True)
        for name, voter in voters.items():
            report[name] = entry = {**voter.facts(total), "probes": {}}
            print(f"  {name}: {voter.facts(total)}")
            for probes in options.probes:
                entry["probes"][probes] = found = voter.search(queries, probes, options)
                found |= ratio(voter.search(some, probes, options), report["exhaustive"])
                print(f"  {name}, {probes:4d} probes: {found}", flush=True)
            costs = voter.cost(some, sample, options)
            entry["costs"] = {key: round(value, 3) for key, value in costs.items()}
            entry["projection"] = project_voting(costs, options.probes[0], voter.code_bytes, real.shape[1])
        for name, asmk in asmks.items():
            search_asmk(asmk.parts[:1], asmk.aggregate(some.descriptors[:9], np.zeros(9, int)), n_queries=1)
            found = asmk.search(queries)
            found |= ratio(asmk.search(some), report["exhaustive"])
            report[name] = {**asmk.facts(total), **found}
            print(f"  {name}: {report[name]}", flush=True)
            report[name]["projection"] = project_asmk(found, options.words, total, real.shape[1])
    report["peak_gib"] = round(peak_gib(), 2)
    print(f"  peak memory of this process {report['peak_gib']} GiB", flush=True)
    return report


def ratio(found: dict[str, float], exact: dict[str, float]) -> dict[str, float]:
    return {
        "times_faster": round(exact["ms_per_query"] / found["ms_per_query"], 1),
        "recall_of_exhaustive": round(found["recall_at_100"] / exact["recall_at_100"], 4),
    }


def read_photos(options: argparse.Namespace) -> tuple[Queries, Floats, Ints]:
    """Extract the features of the real photos, or read what an earlier run kept."""
    folder = shared("data/landmarks")
    gallery = sorted(path.stem for path in (folder / "gallery").glob("*.jpg"))
    answers = {q: a for q, a in read_solution(str(folder / "retrieval_solution.csv")).items() if a}
    names = sorted(answers)
    if options.keep and Path(options.keep).exists():
        with np.load(options.keep) as kept:
            found = [kept[name] for name in ("query", "query_photo", "gallery", "gallery_photo")]
    else:
        found = [
            *features_of(folder / "query", names, options.features),
            *features_of(folder / "gallery", gallery, options.features),
        ]
        if options.keep:
            kept_names = ("query", "query_photo", "gallery", "gallery_photo")
            np.savez(options.keep, **dict(zip(kept_names, found, strict=True)))
    queries = Queries(names, answers, gallery, to_float(found[0]), found[1]).first(options.queries)
    print(f"{len(found[2]):,} real descriptors of {len(gallery)} photos", flush=True)
    return queries, to_float(found[2]), found[3]


def main() -> None:
    """Run the sizes asked for; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--descriptors", type=int, nargs="+", default=[1_000_000], help="sizes of the gallery"
    )
    parser.add_argument(
        "--codes", type=int, nargs="+", default=[16, 0], help="bytes of PQ codes; 0: 8-bit scalars"
    )
    parser.add_argument("--probes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--neighbours", type=int, default=20)
    parser.add_argument("--words", type=int, default=16_384, help="codebook of ASMK; 0: no ASMK")
    parser.add_argument("--asmk-up-to", type=int, default=BILLION, help="largest size for ASMK")
    parser.add_argument("--queries", type=int, default=24, help="at most the 99 with right photos")
    parser.add_argument("--exhaustive", type=int, default=24, help="of them, searched exhaustively")
    parser.add_argument("--features", type=int, default=500, help="per photo")
    parser.add_argument("--sub-index", type=int, default=2_000_000, help="descriptors in a sub-index")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="file that keeps the real photos' features (.npz)")
    parser.add_argument("--scratch", help="folder for the indexes (default: the temporary one)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(options.threads)
    queries, real, rows = read_photos(options)
    sizes = [at_size(options, queries, real, rows, total) for total in options.descriptors]
    print(json.dumps({"threads": options.threads, "neighbours": options.neighbours, "sizes": sizes}))


if __name__ == "__main__":
    main()
