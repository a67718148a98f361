"""Options that mean the same on every command that has them."""

from typing import Annotated

import typer

from lmr.errors import ClusterError

__all__ = ["Scheduler", "SchedulerArgument", "Tls", "named"]

_VARIABLE = "DASK_SCHEDULER_ADDRESS"

Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        envvar=_VARIABLE,
        help="Address of a Dask scheduler: tls://host:8786, tls://[::1]:8786.",
    ),
]
SchedulerArgument = Annotated[
    str, typer.Argument(envvar=_VARIABLE, help="Address of a Dask scheduler: tls://host:8786.")
]
Tls = Annotated[
    str | None,
    typer.Option("--tls", envvar="LMR_TLS", help="Folder of certificates from `lmr cluster certs`."),
]


def named(scheduler: str | None) -> str:
    """Return the address of the scheduler, for a command that cannot do without.

    Raises
    ------
    ClusterError
        If none was named.
    """
    if not scheduler:
        raise ClusterError(
            "no scheduler is named", fix=f"give --scheduler tls://host:8786, or set {_VARIABLE}"
        )
    return scheduler
