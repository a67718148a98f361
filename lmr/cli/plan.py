"""`lmr plan` and `lmr measure`: what a workflow will take and cost on some machines, by measured rates."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lmr.api.choices import Choices
from lmr.api.prepare import prepare
from lmr.api.progress import progress_on
from lmr.api.rates import Rates, measured_rates, read_rates, write_rates
from lmr.api.retrieve import place_of
from lmr.cli.options.choices import with_settings
from lmr.cli.options.shared import Scheduler, Tls
from lmr.cli.output.tables import bytes_text
from lmr.cloud.prices import HOURS_PER_MONTH, Prices, read_prices
from lmr.cluster.capacity import usable_cpus
from lmr.errors import CloudError, SettingsError
from lmr.runtime.forecast import Forecast, MachineGroup, StepForecast, check_fits, forecast, warnings_of
from lmr.runtime.growth import grown
from lmr.runtime.steps import Step, closure
from lmr.scheduler.run import run as run_steps
from lmr.testing import World, write_world

__all__ = ["forecast_tables", "machines_of", "measure", "plan", "show_forecast"]

out = Console(highlight=False)

_GROUP = re.compile(r"(?:(\d{1,6})\s*[x×*]\s*)?([a-z0-9][a-z0-9.-]{0,40})", re.IGNORECASE)
_MEASURED_WORLD = replace(World(), landmarks=20, queries=30, distractors=200, long_side_px=512)
DISK_GB = 200.0
"""Of a machine, as `lmr cluster up` gives it."""

FAR_LARGER = 20
"""A plan for so many times more photos than were measured says so: steps grow faster than their work."""

Machines = Annotated[
    str, typer.Option(help='Machines by types of the price table: "10 x m5.24xlarge, 2 x g5.4xlarge".')
]
RatesFile = Annotated[
    str | None, typer.Option("--rates", help="What `lmr measure` wrote; without it no hours are told.")
]
Spot = Annotated[bool, typer.Option("--spot", help="Count spot prices; your price table must have them.")]
Disk = Annotated[float, typer.Option(min=1, help="Disk of each machine, GB.")]
StorageRate = Annotated[
    float | None, typer.Option(min=0.001, help="What storage delivers to all machines together, GB/s.")
]


@with_settings
def plan(
    settings: Mapping[str, Any],
    workflow: Annotated[
        str,
        typer.Argument(help="The workflow's file, or its name: retrieval, recognition, or descriptors."),
    ],
    gallery: Annotated[str, typer.Option(help="A number of photos, or their folder or URL.")],
    queries: Annotated[str, typer.Option(help="The same of the query photos.")],
    machines: Machines = "10 x m5.24xlarge",
    against: Annotated[
        str | None, typer.Option(help='Other machines to compare with: "1 x x1e.32xlarge".')
    ] = None,
    rates: RatesFile = None,
    spot: Spot = False,
    prices_file: Annotated[str | None, typer.Option("--prices", help="Your price table, TOML.")] = None,
    disk_gb: Disk = DISK_GB,
    storage_gb_s: StorageRate = None,
    speed: Annotated[
        float, typer.Option(min=0.01, help="Of a worker there, where one that was measured has 1.")
    ] = 1.0,
    dimension: Annotated[
        int, typer.Option(min=1, max=65_536, help="Numbers in a descriptor, of the workflow descriptors.")
    ] = 2048,
) -> None:
    """Tell what a workflow will take and cost on some machines, before anything is started."""
    prices = read_prices(prices_file)
    sets = [machines_of(text, prices, spot, disk_gb) for text in (machines, against) if text]
    known = read_rates(rates) if rates else None
    prepared = prepare(
        workflow,
        Choices(
            out="plan",
            gallery=gallery,
            queries=queries,
            planned=True,
            dimension=dimension,
            **settings,
        ),
    )
    photos = len(prepared.flow.inputs.photos.gallery)
    steps = closure(prepared.flow.targets)
    kind = "spot" if spot else "on demand"
    out.print(
        f"{photos:,} gallery photos, {len(prepared.flow.inputs.photos.queries):,} queries; prices {kind}, "
        f"{prices.region}, checked {prices.checked}",
        soft_wrap=True,
    )
    rate = None if storage_gb_s is None else storage_gb_s * 1e9
    forecasts = [show_forecast(steps, known, groups, photos, speed, rate, out) for groups in sets]
    if against and all(found.hours for found in forecasts):
        first, other = forecasts
        out.print(
            f"{_named(first)}: {first.hours:.2f} h, {first.usd:.2f} USD; "
            f"{_named(other)}: {other.hours:.2f} h, {other.usd:.2f} USD: "
            f"{other.hours / first.hours:.1f} times the hours, {other.usd / first.usd:.1f} times the price",
            soft_wrap=True,
        )


def show_forecast(
    steps: Sequence[Step],
    known: Rates | None,
    groups: Sequence[MachineGroup],
    photos: int,
    speed: float,
    storage_bytes_per_second: float | None,
    console: Console,
) -> Forecast:
    """Print what steps take on some machines, and return it; refuse machines that cannot do it."""
    check_fits(steps, groups)
    measured = int(known.measured.get("gallery", 0)) if known else 0
    rates = grown(known.seconds_per_unit, measured, photos) if known else {}
    found = forecast(steps, rates, groups, speed=speed)
    for table in forecast_tables(found):
        console.print(table)
    if known:
        about = ", ".join(f"{k} {v}" for k, v in known.measured.items() if k != "versions")
        console.print(f"rates: measured, {about}; the hours are projected from them", soft_wrap=True)
        if measured and photos > FAR_LARGER * measured:
            console.print(
                f"note: rates were measured with {measured:,} gallery photos. Searches of {photos:,} take "
                "longer for a feature, and are reckoned so by a law that was measured elsewhere. Rates of "
                "more photos make surer hours",
                soft_wrap=True,
            )
    if found.unknown:
        console.print(
            f"not in the hours, since their rates are not known: {', '.join(found.unknown)}; "
            "`lmr measure rates.json` measures them, and --rates rates.json takes them",
            soft_wrap=True,
        )
    if slow := found.bottleneck:
        console.print(f"bottleneck: {slow.name}, {slow.hours or 0:.2f} h. {_mend(slow)}", soft_wrap=True)
    for warning in warnings_of(found, storage_bytes_per_second=storage_bytes_per_second):
        console.print(f"warning: {warning}", soft_wrap=True)
    idle = [g.name for g in found.groups if g.gpus and not any("GPU" in s.resources for s in steps)]
    if idle:
        console.print(f"note: no step needs a GPU, so these machines stand idle: {', '.join(idle)}")
    return found


def measure(
    file: Annotated[str, typer.Argument(help="Where to write the rates: JSON, a path or URL.")],
    gallery: Annotated[str | None, typer.Option(help="Your own photos in place of rendered ones.")] = None,
    queries: Annotated[str | None, typer.Option(help="The same of the queries.")] = None,
    run: Annotated[
        str | None,
        typer.Option("--out", help="Folder or URL to run in, kept; one that has ended is only read."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, as step.field=value; may be repeated.")
    ] = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes on this machine. Default: one per core.")
    ] = None,
) -> None:
    """Measure what each step takes on this machine or cluster, for `lmr plan`; some two minutes."""
    if (gallery is None) != (queries is None):
        raise SettingsError(
            "rates are measured with a gallery and queries",
            got="one of the two",
            fix="give --gallery and --queries, or neither: then photos are rendered",
        )
    if scheduler and not (gallery and run):
        raise SettingsError(
            "a cluster reads photos and writes a run where all its machines reach them",
            got="--scheduler without --gallery, --queries and --out",
            fix="give URLs that all machines reach, such as s3://bucket/photos and s3://bucket/measured",
        )
    with tempfile.TemporaryDirectory() as folder:
        if gallery is None:
            with out.status("rendering photos"):
                write_world(_MEASURED_WORLD, Path(folder) / "world", workers=usable_cpus())
            gallery, queries = f"{folder}/world/gallery", f"{folder}/world/queries"
        root = run or f"{folder}/run"
        # Several shards of each step on a small world, as large as they come on one of one's own.
        small = ("ingest.photos_per_shard=32",) if run is None else ()
        prepared = prepare(
            "retrieval",
            Choices(out=root, gallery=gallery, queries=queries, overrides=(*small, *(set_ or ()))),
        )
        flow, where = prepared.flow, place_of("cpu", scheduler, tls, workers)
        prepared.remember()
        with progress_on(out) as listener:
            run_steps(
                flow.targets,
                prepared.root,
                where,
                listener,
                workflow=prepared.name,
                finalizer=prepared.finalizer,
            )
        rates = measured_rates(
            closure(flow.targets),
            prepared.root,
            gallery=len(flow.inputs.photos.gallery),
            queries=len(flow.inputs.photos.queries),
            workers="a cluster" if scheduler else usable_cpus() if workers is None else max(workers, 1),
        )
    write_rates(file, rates)
    out.print(f"rates of {len(rates.steps)} steps in {file}; lmr plan retrieval --rates {file} takes them")


def machines_of(text: str, prices: Prices, spot: bool, disk_gb: float) -> list[MachineGroup]:
    """Read machines such as "10 x m5.24xlarge, 2 x g5.4xlarge", with their prices.

    Raises
    ------
    SettingsError
        If it is no list of machines.
    CloudError
        If a type has no price, or no spot price where that is asked for.
    """
    groups = []
    for item in text.split(","):
        match = _GROUP.fullmatch(item.strip())
        if not match or match[1] == "0":
            raise SettingsError(
                "these are no machines",
                got=item.strip() or text,
                fix='such as "10 x m5.24xlarge, 2 x g5.4xlarge"',
            )
        name = match[2].lower()
        machine = prices.machine(name)
        each = machine.spot_usd_per_hour if spot else machine.usd_per_hour
        if each is None:
            raise CloudError(
                f"the price table has no spot price of {name}",
                got=f"on demand {machine.usd_per_hour} USD per hour, which spot never passes",
                fix="`lmr cluster prices > prices.toml`, add spot_usd_per_hour to it, and give "
                "--prices prices.toml",
            )
        groups.append(
            MachineGroup(
                name=name,
                count=int(match[1] or 1),
                processors=machine.vcpus,
                memory_bytes=machine.memory_gib * 2**30,
                disk_bytes=disk_gb * 1e9,
                gpus=machine.gpus,
                usd_per_hour=each + disk_gb * prices.disk_gb_month / HOURS_PER_MONTH + prices.address_hour,
            )
        )
    return groups


def forecast_tables(found: Forecast) -> list[Table]:
    """Show a forecast: time and price by step, then memory, disk and bytes."""
    time = Table(title=f"{_named(found)}: {found.usd_per_hour:.2f} USD per hour", title_justify="left")
    room = Table(title="memory, disk, storage", title_justify="left")
    for table, names in (
        (time, ("step", "tasks", "at a time", "core-h", "hours", "USD", "limited by")),
        (room, ("step", "per task", "per machine", "disk", "read", "stored")),
    ):
        for name in names:
            table.add_column(
                name, justify="left" if name in ("step", "limited by") else "right", no_wrap=True
            )
    for step in found.steps:
        hours, cores = step.hours, step.core_hours
        time.add_row(
            step.name,
            f"{step.tasks:,}",
            f"{step.workers:,}",
            "–" if cores is None else f"{cores:,.2f}",
            "–" if hours is None else f"{hours:.3f}",
            "–" if hours is None else f"{hours * found.usd_per_hour:.2f}",
            step.limit,
        )
        sizes = (step.task_bytes, step.machine_bytes, step.mapped_bytes, step.read_bytes, step.written_bytes)
        room.add_row(step.name, *(bytes_text(size) if size else "–" for size in sizes))
    time.add_section()
    if found.hours:
        all_ = f"{found.core_hours:,.2f}", f"{found.hours:.3f}", f"{found.usd:.2f}"
        time.add_row("all", "", "", *all_, "")
    room.add_section()
    most = (max(getattr(s, name) for s in found.steps) for name in ("task_bytes", "machine_bytes"))
    sums = (sum(getattr(s, n) for s in found.steps) for n in ("mapped_bytes", "read_bytes", "written_bytes"))
    room.add_row("all", *(bytes_text(size) for size in (*most, *sums)))
    return [time, room]


def _named(found: Forecast) -> str:
    return ", ".join(f"{group.count} x {group.name}" for group in found.groups)


def _mend(step: StepForecast) -> str:
    """Say what would make the slowest step quicker."""
    if step.limit == "one task":
        return "It is one task: more machines do not help, a faster worker does."
    if step.limit == "tasks":
        return (
            f"It has {step.tasks:,} tasks for {step.workers:,} workers: smaller shards help, machines do not."
        )
    if step.limit == "memory":
        return (
            f"Memory allows {step.workers:,} tasks at a time, of {bytes_text(step.task_bytes)} each: "
            "machines with more memory per processor help, or smaller shards."
        )
    return "Its processors are busy to the end: more machines help in proportion."
