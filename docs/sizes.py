"""Memory, disk and time for three galleries: `python docs/sizes.py` writes them into guides/sizes.md.

Memory and disk come from the cost that every step states before it runs (`lmr.runtime.steps.Cost`), of the
default settings. Time is the work that a step states, times the seconds that a unit of such work took where
docs/results say that it was measured. Only steps are listed whose time grows with their work; searches grow
with the gallery besides, and are measured in docs/results/performance.md.
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

SECONDS_PER_UNIT = {  # what grows, and a core's seconds for a unit of its work
    # results/rehearsal.md, tasks of the contest's size; ingest by the clock, since other processes decode.
    "ingest": {"ingest": 1.65e-3, "ingest_queries": 1.65e-3},
    "local features": {"extract_local": 0.174, "extract_local_queries": 0.174},
    "index": {"train_quantiser": 29.5e-6, "index": 73.7e-6},
    "verification": {"verify": 1.74e-3},
    # results/features.md, "EfficientNet-Lite0 without torch", at the default's two sizes.
    "descriptors": {"network": 0.064, "network_queries": 0.064},
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
        for label, rates in SECONDS_PER_UNIT.items():
            seconds = sum(work[name] * rate for name, rate in rates.items())
            rows[f"core-hours of {label}"].append(_hours(seconds))
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
