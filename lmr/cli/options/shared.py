"""Options that mean the same on every command that has them."""

import os
import shlex
from typing import Annotated

import typer

from lmr import storage
from lmr.errors import ClusterError

__all__ = ["Scheduler", "SchedulerArgument", "Tls", "is_folder", "named"]

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


def named(scheduler: str | None, run: str | None = None) -> str:
    """Return the address of the scheduler, for a command that cannot do without.

    Parameters
    ----------
    scheduler
        What was given.
    run
        What the command was asked about, if it was: a run's name, or its folder.

    Raises
    ------
    ClusterError
        If none was named.
    """
    if not scheduler:
        place = f"give --scheduler tls://host:8786, or set {_VARIABLE}"
        if run and is_folder(run):
            raise ClusterError(
                "no scheduler is named, and only a scheduler knows whether a run goes on",
                got=f"the folder {run}",
                fix=f"{shlex.join(['lmr', 'info', run])} tells what is there; or {place}",
            )
        raise ClusterError(
            "no scheduler is named", fix=f"{place}; of a run without one, lmr info FOLDER tells what is there"
        )
    return scheduler


def is_folder(text: str) -> bool:
    """Tell whether a word means a folder rather than a run's name: a URL, or a folder of this machine."""
    return not storage.is_local(text) or os.path.isdir(storage.local_path(text))
