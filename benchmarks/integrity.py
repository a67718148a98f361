"""Flip single bits in all kinds of files that a run stores: is each one told? And what does verifying cost?

A small world of rendered photos is retrieved. Then bits are flipped, one at a time, evenly over the shards of
each step, the files that were unpacked on this machine, and the JSON files of the run's folder. Each damaged
file is read as lmr reads it. A flip is silent when what is read differs and nothing is said.

The cost is the processor time of verification (checksums of pages, digests of footers, digests of unpacked
files) in one run in this process, beside that of all of the run.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmr.cluster.client import Where
from lmr.errors import LmrError
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.photos.generations import recall, remember
from lmr.steps.photos.listing import list_photos
from lmr.steps.results.folder.datasets import RunDatasets, open_datasets
from lmr.steps.results.report.report import finish_run
from lmr.steps.results.scores import read_solution, solution_for
from lmr.steps.workflow import Inputs
from lmr.storage import _sealed, datasets
from lmr.storage.datasets import Dataset
from lmr.testing import World, write_world
from workflows import retrieval

GOAL = 0.02


def small_run(folder: Path) -> RunDatasets:
    """Retrieve a small rendered world in this process."""
    write_world(World(landmarks=4, queries=8, distractors=8, long_side_px=256, seed=1), folder / "world")
    world = folder / "world"
    settings = retrieval.RetrievalSettings()
    listed = Both(
        list_photos("gallery", str(world / "gallery")), list_photos("queries", str(world / "queries"))
    )
    truth = read_solution(str(world / "solution.csv"))
    flow = retrieval.build(Inputs(photos=listed, solution=solution_for(truth, listed)), settings)
    root = str(folder / "run")
    for photos in flow.inputs.photos.values():
        remember(photos, root)
    run(flow.targets, root, Where())
    finished = RunDatasets.of(flow, root, settings)
    finish_run(finished)
    return finished


Case = tuple[str, Path, Callable[[], Any]]


def cases(finished: RunDatasets, cache: Path) -> Iterator[Case]:
    """Yield what may be damaged: its kind, the file, and what reads it."""
    for dataset in finished.steps:
        for shard in dataset.present():
            part, inside = dataset.locate(shard)
            yield dataset.step, Path(part.shard_url(inside)), lambda d=part, i=inside: (d.read(i), d.facts(i))
    for described in sorted(cache.rglob(_sealed.DESCRIPTION)):
        for path in sorted(described.parent.iterdir()):
            yield f"unpacked {path.suffix or path.name}", path, lambda f=path.parent: unpacked(f)
    photos = recall_of(finished)
    for name, read in (
        ("datasets.json", lambda: open_datasets(finished.root)),
        ("photos/gallery/generations.json", lambda: photos("gallery")),
        ("photos/queries/generations.json", lambda: photos("queries")),
    ):
        yield name.rsplit("/", 1)[-1], Path(finished.root) / name, read


def recall_of(finished: RunDatasets) -> Callable[[str], Any]:
    """Return what reads the generations of a run."""
    world = Path(finished.root).parent / "world"
    listed = {name: list_photos(name, str(world / name)) for name in ("gallery", "queries")}
    return lambda name: recall(listed[name], finished.root)


def unpacked(folder: Path) -> Any:
    """Return the bytes of an unpacked folder, or None where lmr would unpack it again."""
    if not _sealed.is_whole(folder):
        raise LmrError("unpacked again")
    about = _sealed.DESCRIPTION, "verified.json"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in about}


def plain(found: Any) -> str:
    """Return what was read as text: two values that are no number are then equal."""
    parts = found if isinstance(found, tuple) else (found,)
    return repr([part.to_pydict() if isinstance(part, pa.Table) else part for part in parts])


def flip(case: Case, chance: random.Random) -> str:
    """Flip a bit of a file, read it, and restore it; return what came of it."""
    _, path, read = case
    content, times, whole = path.read_bytes(), path.stat(), plain(read())
    bit = chance.randrange(8 * len(content))
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        return "harmless" if plain(read()) == whole else "silent"
    except LmrError:
        return "told"
    finally:
        path.write_bytes(content)


@contextmanager
def measured(spent: Counter[str]) -> Iterator[None]:
    """Count what verification takes of the process's time inside the block."""
    unpacked_digest, counts, footer = _sealed._digest, datasets._check_counts, datasets._digest

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*given: Any) -> Any:
            start = time.thread_time()
            try:
                return call(*given)
            finally:
                spent[name] += time.thread_time() - start

        return timing

    _sealed._digest = timed("digests of unpacked files", unpacked_digest)
    datasets._check_counts = timed("counts of rows and values", counts)
    datasets._digest = timed("digests of footers", footer)
    try:
        yield
    finally:
        _sealed._digest, datasets._check_counts, datasets._digest = unpacked_digest, counts, footer


def page_seconds(finished: RunDatasets, repeats: int = 5) -> tuple[float, float]:
    """Return the processor seconds of reading all shards once, without checksums and with them."""
    files = [pa.py_buffer(path.read_bytes()) for path in Path(finished.root).rglob("*.parquet")]
    best = {False: float("inf"), True: float("inf")}
    for verify in [False, True] * repeats:
        start = time.process_time()
        for file in files:
            pq.ParquetFile(pa.BufferReader(file), page_checksum_verification=verify).read()
        best[verify] = min(best[verify], time.process_time() - start)
    return best[False], best[True]


def bytes_read(reads: Counter[str]) -> Callable[..., Any]:
    """Count the bytes of the shards that a run reads."""
    original = Dataset.read

    def read(self: Dataset, shard: int, *given: Any, **rest: Any) -> Any:
        reads["bytes"] += os.path.getsize(self.locate(shard)[0].shard_url(self.locate(shard)[1]))
        return original(self, shard, *given, **rest)

    Dataset.read = read  # type: ignore[method-assign]
    return original


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flips", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LMR_CACHE"] = str(folder / "cache")
        spent: Counter[str] = Counter()
        reads: Counter[str] = Counter()
        original = bytes_read(reads)
        start = time.process_time()
        with measured(spent):
            finished = small_run(folder)
        total = time.process_time() - start
        Dataset.read = original  # type: ignore[method-assign]
        stored = sum(path.stat().st_size for path in Path(finished.root).rglob("*.parquet"))
        unverified, verified = page_seconds(finished)
        # Every page is written once, and read as often as the run reads shards.
        spent["pages"] = max(verified - unverified, 0.0) * (1 + reads["bytes"] / stored)
        kinds: dict[str, list[Case]] = {}
        for case in cases(finished, folder / "cache"):
            kinds.setdefault(case[0], []).append(case)
        chance = random.Random(options.seed)
        found: Counter[str] = Counter()
        silent = []
        for number in range(options.flips):
            kind = list(kinds)[number % len(kinds)]
            case = chance.choice(kinds[kind])
            outcome = flip(case, chance)
            found[outcome] += 1
            if outcome == "silent":
                silent.append(kind)
    for part, seconds in spent.items():
        print(f"{part}: {1000 * seconds:.1f} ms")
    share = sum(spent.values()) / total
    print(f"{len(kinds)} kinds of files; {dict(found)}; silent in {silent or 'none'}")
    print(f"verification took {100 * share:.2f} % of the run's {total:.1f} s of processor time")
    print(
        json.dumps(
            {
                "flips": options.flips,
                "kinds": len(kinds),
                "told": found["told"],
                "harmless": found["harmless"],
                "silent": found["silent"],
                "verification_share": round(share, 5),
                "goal_share": GOAL,
                "stored_bytes": stored,
                "read_bytes": reads["bytes"],
            }
        )
    )


if __name__ == "__main__":
    main()
