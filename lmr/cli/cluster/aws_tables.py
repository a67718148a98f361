"""What `lmr cluster` shows of a cluster on AWS. Only text; decides nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.table import Table

from lmr.cloud.autoscale import Target
from lmr.cloud.fleet import Instance
from lmr.cloud.leftovers import Leftover
from lmr.cloud.prices import Charge, Prices, total_usd_per_hour

__all__ = ["leftovers_table", "machines_table", "price_table", "targets_table"]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        right = (
            name in ("machines", "vCPUs", "memory", "GPUs", "hours", "now", "target", "tasks")
            or "USD" in name
        )
        table.add_column(name, justify="right" if right else "left", no_wrap=name in ("id", "type"))
    return table


def price_table(charges: Sequence[Charge], prices: Prices, title: str) -> Table:
    """Show what a fleet has and what it costs per hour."""
    table = _table(title, "group", "type", "machines", "vCPUs", "memory", "GPUs", "USD/h each", "USD/h")
    vcpus, memory_gib, gpus = 0, 0.0, 0
    for charge in charges:
        machine, count = prices.machine(charge.type), charge.group.count
        vcpus += machine.vcpus * count
        memory_gib += machine.memory_gib * count
        gpus += machine.gpus * count
        table.add_row(
            charge.group.name,
            charge.type,
            str(count),
            f"{machine.vcpus * count:,}",
            f"{machine.memory_gib * count:,.0f} GiB",
            str(machine.gpus * count),
            f"{charge.each_usd:.3f}",
            f"{charge.usd_per_hour:.2f}",
        )
    table.add_section()
    machines = sum(charge.group.count for charge in charges)
    total = f"{total_usd_per_hour(charges):.2f}"
    table.add_row(
        "all, at most", "", str(machines), f"{vcpus:,}", f"{memory_gib:,.0f} GiB", str(gpus), "", total
    )
    return table


def machines_table(machines: Sequence[Instance], prices: Prices, now: datetime, title: str) -> Table:
    """Show a cluster's machines, since when they run and what each has cost."""
    table = _table(title, "group", "id", "type", "state", "bought", "hours", "USD so far")
    for one in machines:
        hours = max((now - one.since).total_seconds(), 0) / 3600
        price = prices.machines.get(one.type)
        table.add_row(
            one.group,
            one.id,
            one.type,
            one.state,
            "spot" if one.spot else "on demand",
            f"{hours:.2f}",
            f"{price.usd_per_hour * hours:.2f}" if price else "no price",
        )
    return table


def targets_table(
    now: Mapping[str, int], tasks: Mapping[str, int], targets: Mapping[str, Target], sizes: Mapping[str, int]
) -> Table:
    """Show what each group has to do, how large it shall be and why."""
    table = _table("autoscale", "group", "tasks", "now", "target", "done in", "why")
    for kind, target in targets.items():
        hours = "unknown" if target.hours == float("inf") else f"{target.hours:.2f} h"
        reason = target.reason
        if sizes[kind] < target.machines:
            reason += f"; would be {target.machines} but for the limit per hour"
        table.add_row(kind, str(tasks[kind]), str(now[kind]), str(sizes[kind]), hours, reason)
    return table


def leftovers_table(left: Sequence[Leftover]) -> Table:
    """Show what is still there."""
    table = _table("still there", "what", "id", "to end it")
    for one in left:
        table.add_row(one.kind, one.name, one.fix)
    return table
