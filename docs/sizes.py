"""Memory, disk and time for three galleries: `python docs/sizes.py` writes them into guides/sizes.md.

Memory and disk come from the cost that every step states before it runs (`lmr.runtime.steps.Cost`), of the
default settings. Time is the work that a step states, times the seconds that its tasks took for such work in
the run of docs/results/quality.md, "Time and memory"; that run used VLAD, so the default's network is taken
from docs/results/features.md, "EfficientNet-Lite0 without torch". Only steps are listed whose time grows with
their work; searches grow with the gallery besides, and are measured in docs/results/performance.md.
"""

from collections import defaultdict
from pathlib import Path

from lmr.api.workflows import load_workflow, preset
from lmr.cli.output.tables import bytes_text
from lmr.runtime.settings import layer
from lmr.runtime.steps import Step, closure
from lmr.steps.both import Both
from lmr.steps.inputs import Inputs
from lmr.steps.photos.imagined import imagined

PAGE = Path(__file__).parent / "guides" / "sizes.md"
BEGIN, END = "<!-- made by docs/sizes.py -->\n", "<!-- end -->\n"
GALLERIES = (1_000, 100_000, 1_000_000)
PHOTOS_PER_QUERY = 10

MEASURED_PHOTOS = 1_473, 118
MEASURED_SECONDS = {  # what grows, and the seconds of tasks of two workers (results/quality.md)
    "ingest": (("ingest", "ingest_queries"), 2.3),
    "local features": (("extract_local", "extract_local_queries"), 186.4),
    "index": (("index",), 28.0),  # its quantiser too
    "verification": (("verify",), 83.0),
    # 0.064 s for each photo, decoding apart (results/features.md).
    "descriptors": (("extract_global", "extract_global_queries"), 0.064 * sum(MEASURED_PHOTOS)),
}


def steps_of(gallery: int, queries: int) -> list[Step]:
    """Declare the default workflow on so many photos, none of which has to exist."""
    module = load_workflow("retrieval")
    per_shard = 128 if gallery < 10_000 else 1_000
    settings = layer(preset(module, None), {"ingest": {"photos_per_shard": per_shard}})
    photos = Both(imagined("gallery", gallery), imagined("queries", queries))
    return list(closure(module.build(Inputs(photos=photos), settings).targets))


def disk_bytes(steps: list[Step]) -> float:
    """Return what the shards of all steps take in storage."""
    return sum(step.rows * step.bytes_per_row for step in steps)


def work_of(steps: list[Step]) -> dict[str, float]:
    """Return the stated work by step, gallery and queries together."""
    total: dict[str, float] = defaultdict(float)
    for step in steps:
        total[step.name] += step.cost.work
    return total


def table() -> str:
    """Return the table as markdown."""
    at_measurement = work_of(steps_of(*MEASURED_PHOTOS))
    rows: dict[str, list[str]] = defaultdict(list)
    for gallery in GALLERIES:
        steps = steps_of(gallery, gallery // PHOTOS_PER_QUERY)
        work = work_of(steps)
        largest = max(steps, key=lambda step: step.cost.peak_bytes)
        rows["the run's folder"].append(bytes_text(disk_bytes(steps)))
        rows["unpacked on each machine, at most"].append(
            bytes_text(sum(step.cost.mapped_bytes for step in steps))
        )
        rows["memory of a process, at most"].append(f"{bytes_text(largest.cost.peak_bytes)} ({largest.name})")
        for label, (names, seconds) in MEASURED_SECONDS.items():
            growth = sum(work[name] for name in names) / sum(at_measurement[name] for name in names)
            rows[f"core-hours of {label}"].append(_hours(seconds * growth))
    head = " | ".join(f"{gallery:,} photos" for gallery in GALLERIES)
    lines = [f"| | {head} |", "|---|" + "---:|" * len(GALLERIES)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())]) + "\n"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def written(page: str) -> str:
    """Return the page with the table of today's code."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
