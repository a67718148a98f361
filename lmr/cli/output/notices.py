"""What `lmr run` says before it starts: networks' terms and how long they take, memory that may not do."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from rich.console import Console

from lmr.api.rates import read_rates
from lmr.cli.output.tables import bytes_text
from lmr.cloud.prices import read_prices
from lmr.errors import StorageError
from lmr.features.weights.fetch import recognise
from lmr.runtime.estimate import StepWork, seconds_left, span_text
from lmr.runtime.graph import Plan, make_plan
from lmr.runtime.rates import work_of
from lmr.steps.features.estimate import Estimate, estimate_networks
from lmr.steps.results.folder.datasets import open_datasets
from lmr.steps.workflow import Workflow
from lmr.storage.datasets import Dataset

__all__ = [
    "estimate_text",
    "memory_text",
    "tell_of_machines",
    "tell_of_networks",
    "tell_of_time",
    "time_text",
]


def tell_of_networks(flow: Workflow, root: str, workers: int | None, out: Console) -> None:
    """Print what a user should know before networks run; nothing where there are none.

    Parameters
    ----------
    flow, root
        The workflow and its folder.
    workers
        Processes on this machine; None on a cluster, whose workers are not known here.
    out
        Where to print.
    """
    inputs = flow.inputs
    for weights in (inputs.local_weights, inputs.weights):
        name = PurePosixPath(weights.url.rstrip("/")).name if weights else ""
        known = recognise(name, weights.digest) if weights else None
        if known and known.restriction:
            out.print(f"weights {name}: {known.licence}; {known.restriction}", soft_wrap=True)
    if inputs.device != "cpu" or (inputs.weights is None and inputs.local_weights is None):
        return
    for estimate in estimate_networks(make_plan(flow.targets, root), inputs.photos.gallery):
        out.print(estimate_text(estimate, workers), soft_wrap=True)


def tell_of_time(plan: Plan, workers: int | None, out: Console) -> None:
    """Print how long a plan will take, by what shards of the last run in its folder took.

    Parameters
    ----------
    plan
        What is to be done.
    workers
        Processes on this machine; None on a cluster, whose workers are not known here: then it is told what
        one worker would take.
    out
        Where to print.
    """
    if plan.totals:
        out.print(time_text(work_of(plan, _last_run(plan.root)), workers), soft_wrap=True)


def tell_of_machines(plan: Plan, machines: str, rates: str | None, photos: int, out: Console) -> None:
    """Print what the steps of a plan that are not whole take on some machines, as `lmr plan` does."""
    from lmr.cli import plan as planning

    groups = planning.machines_of(machines, read_prices(), False, planning.DISK_GB)
    steps = [need.step for need in plan if need.missing]
    if steps:
        planning.show_forecast(steps, read_rates(rates) if rates else None, groups, photos, 1.0, None, out)


def time_text(work: Mapping[str, StepWork], workers: int | None) -> str:
    """Return a sentence on how long steps will take on some workers; None: as long as one needs."""
    left = seconds_left(work, {}, {}, {"": max(workers or 1, 1)})
    if left.unknown and not left.seconds:
        return "time: not known before the first shards"
    on = "one worker, more take less" if workers is None else f"{max(workers, 1)} process(es) of this machine"
    text = f"time: {span_text(left.seconds)} on {on}, by what shards of the last run took"
    return f"{text}; not known yet: {', '.join(left.unknown)}" if left.unknown else text


def _last_run(root: str) -> tuple[Dataset, ...]:
    """Return the datasets of the last run that has ended in a folder; none where there is none."""
    try:
        return open_datasets(root).steps
    except StorageError:
        return ()


def estimate_text(estimate: Estimate, workers: int | None) -> str:
    """Return a sentence or two on an estimate."""
    says = f"{estimate.step} runs a network on CPUs"
    each = estimate.seconds_per_photo
    if each is None:
        return f"{says}; how long is not known, since torch is not installed on this machine"
    measured = f"{says}: {each:.2g} s per photo and core, measured here on {estimate.measured} of the photos"
    total = estimate.photos * each
    if workers is None:
        return (
            f"{measured}; {estimate.photos:,} photos take one such core {span_text(total)}, "
            "more cores as much less"
        )
    return (
        f"{measured}; {estimate.photos:,} photos take about {span_text(total / max(workers, 1))} "
        f"with {max(workers, 1)} process(es)"
    )


def memory_text(plan: Plan, workers: int, memory_bytes: float) -> str:
    """Return a warning where so many processes of this machine may not have the memory; else nothing.

    Parameters
    ----------
    plan
        What is to be done.
    workers
        Processes on this machine; 0 is this very process.
    memory_bytes
        What the machine has.
    """
    largest = max((need.step for need in plan if need.missing), key=lambda s: s.cost.peak_bytes, default=None)
    processes = max(workers, 1)
    if largest is None or largest.cost.peak_bytes * processes <= memory_bytes:
        return ""
    fits = int(memory_bytes // largest.cost.peak_bytes)
    fix = f"--workers {fits} fits" if 0 < fits < processes else "photos in smaller shards take less"
    each = bytes_text(largest.cost.peak_bytes)
    return (
        f"memory may not do: a task of {largest.name} takes up to {each}, {processes} process(es) as many "
        f"times that, and this machine has {bytes_text(memory_bytes)}; {fix}"
    )
