"""`lmr cluster lab`: a cluster on several servers that are reached by ssh."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lmr.cluster.address import Address
from lmr.cluster.client import connect
from lmr.errors import ClusterError
from lmr.lab import lab as servers
from lmr.lab.hosts import Lab, read_lab
from lmr.lab.lab import State
from lmr.scheduler.backlog import read_backlog
from lmr.versions import installed

__all__ = ["lab_app"]

lab_app = typer.Typer(no_args_is_help=True, help="A cluster on several servers by ssh: up, status, down.")
out = Console(highlight=False, markup=False)

Hosts = Annotated[Path, typer.Argument(metavar="HOSTS.toml", help="Like deploy/lab/hosts.toml.")]


@lab_app.command()
def up(hosts: Hosts) -> None:
    """Check the servers, copy certificates, start scheduler and workers; what runs already stays."""
    lab = read_lab(hosts)
    _certificates(lab)
    with out.status(f"asking {len(lab.hosts)} servers for their versions"):
        servers.check(lab, {name: number or "none" for name, number in installed().items()})
    with out.status("starting"):
        states = servers.up(lab)
    out.print(_table(lab, states))
    _refuse_unknown(states)
    out.print(
        f"next: lmr cluster lab status {hosts}\n"
        f"      lmr run workflows/retrieval.py … --scheduler {lab.scheduler} --tls {lab.tls}",
        soft_wrap=True,
    )


@lab_app.command()
def status(hosts: Hosts) -> None:
    """Show what runs on every server, and how often it had to be started again."""
    lab = read_lab(hosts)
    states = servers.status(lab)
    out.print(_table(lab, states))
    if any(state.host.role == "scheduler" and state.state == "running" for state in states):
        out.print(_workers(lab), soft_wrap=True)
    _refuse_unknown(states)


@lab_app.command()
def down(hosts: Hosts) -> None:
    """Stop workers and scheduler on every server; certificates and logs stay there."""
    lab = read_lab(hosts)
    states = servers.down(lab)
    out.print(_table(lab, states))
    _refuse_unknown(states)


def _certificates(lab: Lab) -> None:
    if not (lab.tls / "ca.pem").is_file():
        host = Address.parse(lab.scheduler).host
        raise ClusterError(
            f"there are no certificates in {lab.tls}",
            got="no ca.pem",
            fix=f"lmr cluster certs {lab.tls} --host {host}",
        )


def _workers(lab: Lab) -> str:
    """Tell whom the scheduler knows: a server's workers may run and yet be cut off from it."""
    try:
        with connect(lab.scheduler, str(lab.tls)) as client:
            demand = read_backlog(client)
    except ClusterError as error:
        return f"the scheduler runs, but cannot be asked from here: {error.got}"
    tasks = sum(pending.tasks for pending in demand.pending)
    known = f"{demand.workers} workers on {len(demand.slots)} servers"
    return f"the scheduler knows {known}; {tasks} tasks are pending"


def _table(lab: Lab, states: list[State]) -> Table:
    table = Table(title=f"{lab.name}, scheduler {lab.scheduler}", title_justify="left")
    for name in ("server", "role", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("since", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last line of its log")
    for state in states:
        running = state.state == "running"
        table.add_row(
            state.host.ssh,
            state.host.role,
            state.state,
            str(timedelta(seconds=state.seconds)) if running else "",
            str(state.restarts) if running else "",
            state.last,
        )
    return table


def _refuse_unknown(states: list[State]) -> None:
    if unknown := [state for state in states if state.state == "unknown"]:
        raise ClusterError(
            f"{len(unknown)} of {len(states)} could not be asked: {unknown[0].host.ssh}",
            got=unknown[0].last,
            fix="mend that and run the same command again; what runs stays as it is",
        )
