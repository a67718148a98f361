"""What a fleet costs per hour, what was spent, and the limits that neither may pass. Pure."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from lmr.errors import CloudError, one_line
from lmr.shipped import shipped

__all__ = [
    "Charge",
    "Group",
    "Limits",
    "Machine",
    "Prices",
    "Rate",
    "check_limits",
    "hours_ahead",
    "month_start",
    "price_fleet",
    "read_prices",
    "spent_usd",
    "total_usd_per_hour",
]

HOURS_PER_MONTH = 730.0
"""A year's hours by twelve; what prices per month are divided by."""


@dataclass(frozen=True)
class Machine:
    """A type of machine, its on-demand price, and that of a spot machine where the table has it."""

    usd_per_hour: float
    vcpus: int
    memory_gib: float
    gpus: int = 0
    spot_usd_per_hour: float | None = None


@dataclass(frozen=True)
class Prices:
    """A table of prices for one region.

    Attributes
    ----------
    region
        The region that it holds for.
    checked
        The day when somebody last looked.
    machines
        By name of the type.
    disk_gb_month, address_hour
        USD for a gigabyte of disk a month, and for a public address an hour.
    """

    region: str
    checked: str
    machines: Mapping[str, Machine]
    disk_gb_month: float
    address_hour: float

    def machine(self, name: str) -> Machine:
        """Return a type of machine.

        Raises
        ------
        CloudError
            If it has no price: what cannot be priced is not started.
        """
        if name not in self.machines:
            raise CloudError(
                f"the price table has no {name}",
                got=f"prices of {', '.join(sorted(self.machines))}",
                fix="`lmr cluster prices > prices.toml`, add it, and give --prices prices.toml",
            )
        return self.machines[name]


def read_prices(path: str | None = None) -> Prices:
    """Read a price table, or the one that comes with lmr.

    Raises
    ------
    CloudError
        If it cannot be read.
    """
    file = Path(path) if path else shipped("deploy/aws/prices.toml")
    try:
        table = tomllib.loads(file.read_text())
        machines = {name: Machine(**fields) for name, fields in table["machines"].items()}
        prices = Prices(
            region=table["region"],
            checked=str(table["checked"]),
            machines=machines,
            disk_gb_month=float(table["disk_gb_month"]),
            address_hour=float(table["address_hour"]),
        )
        wrong = [name for name, m in machines.items() if not m.usd_per_hour > 0]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CloudError(
            f"{file} is not a price table",
            got=one_line(error),
            fix="begin with a copy of the one that comes with lmr: lmr cluster prices > prices.toml",
        ) from error
    if wrong:
        raise CloudError(
            f"{file} has machines without a price",
            got=", ".join(wrong),
            fix="give each machine of the table a price, USD per hour",
        )
    return prices


@dataclass(frozen=True, kw_only=True)
class Group:
    """Machines that are started and priced together.

    Attributes
    ----------
    name
        `scheduler`, `cpu` or `gpu`.
    types
        The types of machine that it may get, by AWS's choice.
    count
        How many machines.
    disk_gb
        Disk of each.
    """

    name: str
    types: tuple[str, ...]
    count: int
    disk_gb: int


@dataclass(frozen=True)
class Charge:
    """What a group costs.

    Attributes
    ----------
    group
        The group.
    type
        The dearest type that it may get.
    each_usd
        USD per hour for one machine with its disk and address.
    """

    group: Group
    type: str
    each_usd: float

    @property
    def usd_per_hour(self) -> float:
        """USD per hour for the whole group."""
        return self.each_usd * self.group.count


def price_fleet(groups: Sequence[Group], prices: Prices) -> list[Charge]:
    """Price a fleet per hour, at most: every machine the dearest of its group, on demand.

    Raises
    ------
    CloudError
        If a type has no price.
    """
    charges = []
    for group in groups:
        dearest = max(group.types, key=lambda name: prices.machine(name).usd_per_hour)
        disk = group.disk_gb * prices.disk_gb_month / HOURS_PER_MONTH
        each = prices.machine(dearest).usd_per_hour + disk + prices.address_hour
        charges.append(Charge(group, dearest, each))
    return charges


def total_usd_per_hour(charges: Sequence[Charge]) -> float:
    """USD per hour for a fleet."""
    return sum(charge.usd_per_hour for charge in charges)


@dataclass(frozen=True)
class Rate:
    """From `at` on a cluster costs at most `usd_per_hour`; one line of its ledger."""

    at: datetime
    usd_per_hour: float


def spent_usd(rates: Sequence[Rate], since: datetime, until: datetime) -> float:
    """USD that a cluster cost at most in a span of time, from its ledger.

    Parameters
    ----------
    rates
        In any order; each holds until the next.
    """
    ordered = sorted(rates, key=lambda rate: rate.at)
    total = 0.0
    for rate, following in pairwise([*ordered, Rate(until, 0.0)]):
        span = min(following.at, until) - max(rate.at, since)
        total += rate.usd_per_hour * max(span, timedelta(0)).total_seconds() / 3600
    return total


@dataclass(frozen=True)
class Limits:
    """USD that a cluster may cost; None: no limit."""

    per_hour: float | None = None
    per_month: float | None = None


def month_start(now: datetime) -> datetime:
    """Return the start of the month, UTC, by which AWS bills."""
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def hours_ahead(now: datetime, stop: datetime | None) -> float:
    """Hours until the groups stop by themselves or the month ends, whichever is first."""
    start = month_start(now)
    month_end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    end = month_end if stop is None else min(month_end, stop)
    return max((end - now).total_seconds(), 0.0) / 3600


def check_limits(
    limits: Limits, *, usd_per_hour: float, hours: float = 0.0, spent_this_month_usd: float = 0.0
) -> None:
    """Refuse a fleet that is, or may become, too dear.

    Parameters
    ----------
    limits
        What it may cost.
    usd_per_hour
        What it would cost.
    hours
        How long it may run this month.
    spent_this_month_usd
        What the cluster has cost this month.

    Raises
    ------
    CloudError
        If it would pass a limit.
    """
    if limits.per_hour is not None and usd_per_hour > limits.per_hour:
        raise CloudError(
            "this fleet costs more than its limit per hour, and was not started",
            got=f"{usd_per_hour:.2f} USD per hour, limit {limits.per_hour:.2f}",
            fix="fewer or smaller machines (--cpu, --gpu, --cpu-types), or a higher --limit-per-hour",
        )
    month = spent_this_month_usd + usd_per_hour * hours
    if limits.per_month is not None and month > limits.per_month:
        raise CloudError(
            "this fleet may cost more than its limit per month, and was not started",
            got=f"{spent_this_month_usd:.2f} USD spent + {usd_per_hour:.2f} per hour for {hours:.1f} h"
            f" = {month:.2f}, limit {limits.per_month:.2f}",
            fix="stop it earlier (--hours 6), fewer machines, or a higher --limit-per-month",
        )
