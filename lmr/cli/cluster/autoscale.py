"""`lmr cluster autoscale` and `retire`: as many machines as a deadline asks for, and leaving in peace."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from time import sleep as pause
from typing import Annotated

import typer

from lmr.api.rates import read_rates
from lmr.cli.cluster import aws_tables
from lmr.cli.cluster.aws_session import (
    Name,
    Poll,
    PricesFile,
    Region,
    asking,
    end_cluster,
    find_cluster,
    leaving,
    now_utc,
    open_session,
    out,
    resize,
)
from lmr.cli.options.shared import Scheduler, SchedulerArgument, Tls
from lmr.cloud.autoscale import Bounds, Target, Work, decide, fit_price
from lmr.cloud.found import Cluster
from lmr.cloud.prices import Prices, hours_ahead, month_start, price_fleet, read_prices, spent_usd
from lmr.cloud.session import Aws
from lmr.cloud.spending import read_spending
from lmr.cluster.address import own_host
from lmr.cluster.client import connect as connect_to
from lmr.errors import SettingsError
from lmr.scheduler.backlog import Backlog, retire_hosts

__all__ = ["autoscale", "parse_span", "retire"]

RESOURCES = {"cpu": "CPU", "gpu": "GPU"}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def autoscale(
    name: Name,
    deadline: Annotated[
        str, typer.Option(help="6h or 90m from now, or a time such as 2026-11-24T18:00+00:00.")
    ],
    cpu_min: Annotated[int, typer.Option(min=0, help="Fewest CPU machines.")] = 0,
    gpu_min: Annotated[int, typer.Option(min=0, help="Fewest GPU machines.")] = 0,
    boot_minutes: Annotated[
        float, typer.Option(min=0, help="What a new machine needs before its first task; assumed.")
    ] = 5.0,
    every: Annotated[str, typer.Option(help="How often to look, such as 30s or 1m.")] = "1m",
    once: Annotated[bool, typer.Option("--once", help="Look and act once.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look once and say what would be done.")] = False,
    down_when_done: Annotated[
        bool, typer.Option("--down", help="When nothing is left to do: end the cluster. The bucket stays.")
    ] = False,
    rates: Annotated[
        str | None,
        typer.Option(help="What `lmr measure` wrote: the groups are sized by it before the first task ends."),
    ] = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    region: Region = None,
    prices_file: PricesFile = None,
    poll_seconds: Poll = 5.0,
) -> None:
    """Size the groups so that the scheduler's work is done by a deadline. With --down: the final push."""
    prices = read_prices(prices_file)
    known = read_rates(rates).seconds_per_unit if rates else {}
    aws = open_session(region, prices)
    end = now_utc() + parse_span(deadline) if _is_span(deadline) else _time(deadline)
    worked = False
    while True:
        cluster, now = find_cluster(aws, name), now_utc()
        smallest = {"cpu": cpu_min, "gpu": gpu_min}
        with asking(aws, name, scheduler, tls, needed=True) as (client, demand):
            assert demand is not None
            targets, tasks = {}, {}
            for kind, asked in RESOURCES.items():
                pending, seconds, unmeasured = demand.of(asked, known)
                tasks[kind] = pending
                targets[kind] = decide(
                    Work(pending=pending, seconds=seconds, unmeasured=unmeasured),
                    Bounds(
                        current=cluster.sizes[kind],
                        smallest=smallest[kind],
                        largest=group.largest if (group := cluster.groups.get(kind)) else 0,
                        slots=_slots(cluster, kind, demand, prices),
                    ),
                    seconds_left=(end - now).total_seconds(),
                    boot_seconds=boot_minutes * 60,
                )
            sizes, usd = _affordable(cluster, targets, prices, aws, now)
            worked = worked or any(tasks.values())
            out.print(aws_tables.targets_table(cluster.sizes, tasks, targets, sizes))
            out.print(
                f"{now:%H:%M:%S} UTC, deadline {end:%Y-%m-%d %H:%M} UTC, at most {usd:.2f} USD per hour"
            )
            if dry_run:
                return
            if sizes != cluster.sizes:
                resize(aws, cluster, sizes, usd, now, leaving(aws, cluster, sizes, client, demand))
        if worked and down_when_done and not any(tasks.values()):
            end_cluster(aws, name, poll_seconds)
            return
        if once:
            return
        pause(parse_span(every).total_seconds())


def retire(
    address: SchedulerArgument,
    tls: Tls = None,
    host: Annotated[str | None, typer.Option(help="Whose workers; default: this machine's.")] = None,
) -> None:
    """Have a machine's workers hand over what they hold and stop: before it is taken or ended."""
    with connect_to(address, tls) as client:
        count = retire_hosts(client, [host or own_host(address)])
    out.print(f"{count} workers retired")


def _affordable(
    cluster: Cluster, targets: Mapping[str, Target], prices: Prices, aws: Aws, now: datetime
) -> tuple[dict[str, int], float]:
    """Cut targets to what the cluster's limits allow; return the sizes and what they cost per hour."""
    wanted = {kind: target.machines for kind, target in targets.items()}
    charges = {c.group.name: c for c in price_fleet(cluster.priced(wanted), prices)}
    limits, scheduler = cluster.limits, charges["scheduler"].usd_per_hour
    most = math.inf if limits.per_hour is None else limits.per_hour
    if limits.per_month is not None:
        ledger = read_spending(aws, cluster.bucket)
        rest = limits.per_month - spent_usd(ledger, month_start(now), now)
        ahead = [rate.at for rate in ledger if rate.at > now]
        most = min(most, rest / max(hours_ahead(now, min(ahead, default=None)), 1e-3))
    each = {kind: charges[kind].each_usd for kind in wanted}
    sizes = fit_price(wanted, cluster.sizes, each, most - scheduler)
    return sizes, scheduler + sum(each[kind] * sizes[kind] for kind in sizes)


def _slots(cluster: Cluster, kind: str, demand: Backlog, prices: Prices) -> float:
    """Tasks that a machine of a group runs at a time: as its machines say, else as its type has."""
    name = RESOURCES[kind]
    said = [host[name] for host in demand.slots.values() if host.get(name)]
    if said:
        return sum(said) / len(said)
    machine = prices.machine(cluster.types[kind][0])
    return machine.vcpus if kind == "cpu" else max(machine.gpus, 1)


def _is_span(text: str) -> bool:
    return text[-1:] in UNITS and text[:-1].replace(".", "", 1).isdigit()


def parse_span(text: str) -> timedelta:
    """Read a span of time such as 90s, 30m, 6h or 2d."""
    if not _is_span(text):
        raise SettingsError("this is no span of time", got=text, fix="such as 90s, 30m, 6h or 2d")
    return timedelta(seconds=float(text[:-1]) * UNITS[text[-1]])


def _time(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            "this is no deadline", got=text, fix="6h, 90m, or a time such as 2026-11-24T18:00+00:00"
        ) from error
    return when if when.tzinfo else when.astimezone()
