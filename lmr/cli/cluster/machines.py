"""`lmr cluster` and `lmr dashboard`: certificates, a scheduler, workers, and a look at them from afar."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lmr.cli.options.shared import Scheduler, SchedulerArgument, Tls
from lmr.cluster import commands, tunnel
from lmr.cluster.address import Address, host_name
from lmr.cluster.certificates import make_certificates

__all__ = ["cluster_app", "dashboard"]

cluster_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Clusters: certs, scheduler, worker; on AWS: up, down."
)
out = Console(highlight=False, markup=False)

GOES_WHERE = {
    "ca": "all machines",
    "scheduler": "the scheduler's machine",
    "worker": "every worker's machine",
    "client": "the laptops that submit",
}

Unprotected = Annotated[
    bool, typer.Option("--unprotected", help="Allow ports that anyone who reaches them can misuse.")
]


@cluster_app.command()
def certs(
    folder: Annotated[Path, typer.Argument(help="Folder to make; keep it: it holds the authority's key.")],
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address of the scheduler's host; may be repeated.")
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, max=36_500, help="Days for which the certificates are valid.")
    ] = 365,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Make a private authority and certificates for scheduler, workers and clients."""
    files = make_certificates(folder, hosts=host or (), days=days, force=force)
    table = Table(title=f"certificates in {folder}, valid for {days} days", title_justify="left")
    table.add_column("file", no_wrap=True)
    table.add_column("goes to")
    for path in files:
        secret = "" if path.suffix == ".pem" else ", mode 0600"
        kept = path.name == "ca.key"
        table.add_row(
            path.name, "nowhere: signs certificates, keep it" if kept else GOES_WHERE[path.stem] + secret
        )
    out.print(table)
    address = Address("tls", host[0] if host else "HOST", 8786)
    out.print(
        f"next: lmr cluster scheduler --tls {folder}\n      lmr cluster worker {address} --tls {folder}",
        soft_wrap=True,
    )


@cluster_app.command()
def scheduler(
    tls: Tls = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: all with --tls, 127.0.0.1 without.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the scheduler.")] = 8786,
    dashboard_host: Annotated[
        str, typer.Option(help="Address of the dashboard; a private one, since it has no password.")
    ] = "127.0.0.1",
    dashboard_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the dashboard.")] = 8787,
    dashboard_name: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which browsers ask for the dashboard, besides localhost; may be repeated."
        ),
    ] = None,
    unprotected: Unprotected = False,
) -> None:
    """Start a scheduler on this machine; it runs until it is stopped."""
    commands.exec_command(
        commands.scheduler_command(
            tls=tls,
            host=host,
            port=port,
            dashboard_host=dashboard_host,
            dashboard_port=dashboard_port,
            dashboard_names=dashboard_name or (),
            unprotected=unprotected,
        )
    )


@cluster_app.command()
def worker(
    address: SchedulerArgument,
    tls: Tls = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes. Default: one per core, as memory allows.")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="One worker per GPU instead, by dask-cuda.")] = False,
    memory_per_worker: Annotated[
        str, typer.Option(help="Such as 4GB; beyond it a worker is started again.")
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="Name of this machine's workers.")] = None,
    cache: Annotated[str | None, typer.Option(help="Folder for unpacked datasets; sets LMR_CACHE.")] = None,
    contact_address: Annotated[
        str | None,
        typer.Option(help="host:port where others reach this one worker: a container's published port."),
    ] = None,
    unprotected: Unprotected = False,
) -> None:
    """Start the workers of this machine; ends with an error when cut off, to be started again."""
    command = commands.worker_command(
        address,
        tls=tls,
        workers=workers,
        gpu=gpu,
        memory_per_worker=memory_per_worker,
        name=name,
        cache=cache,
        contact_address=contact_address,
        unprotected=unprotected,
    )
    sys.exit(commands.supervise(command))


def dashboard(
    scheduler: Scheduler = None,
    tls: Tls = None,
    ssh: Annotated[str | None, typer.Option(help="The scheduler's machine, as ssh knows it.")] = None,
    ssm: Annotated[str | None, typer.Option(help="The scheduler's EC2 instance, i-…")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8787,
    print_: Annotated[bool, typer.Option("--print", help="Print the command, do not run it.")] = False,
) -> None:
    """Open a tunnel to the dashboard, which listens on a private address, or print it."""
    place = tunnel.dashboard_place(scheduler, tls) if scheduler else tunnel.USUAL_PLACE
    at = f"{host_name(place.host)}:{place.port}"
    if scheduler is None and not print_:
        out.print(
            f"no scheduler was named, so none was asked: this is for a dashboard at {at}, where"
            " `lmr cluster scheduler` puts it unless told otherwise",
            soft_wrap=True,
        )
    if not (ssh or ssm):
        found = "to open it" if scheduler is None else f"the dashboard listens at {at}"
        out.print(f"{found}; from another machine, one of", soft_wrap=True)
        for command in (
            tunnel.tunnel_command(place, ssh="HOST", local_port=port),
            tunnel.tunnel_command(place, ssm="INSTANCE", local_port=port),
        ):
            out.print(f"  {tunnel.shown(command)}", soft_wrap=True)
        out.print(f"then http://127.0.0.1:{port}/status")
        return
    command = tunnel.tunnel_command(place, ssh=ssh, ssm=ssm, local_port=port)
    if print_:
        out.print(tunnel.shown(command), soft_wrap=True)
        return
    out.print(f"http://127.0.0.1:{port}/status while this runs; Ctrl-C ends it", soft_wrap=True)
    out.file.flush()
    tunnel.become(command)
