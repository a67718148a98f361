"""The command line: parse, layer settings, hand over to a workflow. No logic of its own."""

import sys
from typing import Annotated

import typer

from lmr import __version__
from lmr.cli.lazy import Command, LazyGroup
from lmr.errors import LmrError

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = {
    "run": Command("lmr.cli.run:run", "Run a workflow, or go on with one: only what is missing is made."),
    "submit": Command(
        "lmr.cli.runs:submit",
        "Send a workflow to a scheduler and return at once: it goes on without this machine.",
    ),
    "watch": Command(
        "lmr.cli.runs:watch", "Follow a run to its end, from any machine; leaving does not stop it."
    ),
    "status": Command("lmr.cli.runs:status", "Tell how far a run is."),
    "runs": Command("lmr.cli.runs:runs", "List the runs that a scheduler knows."),
    "cancel": Command(
        "lmr.cli.runs:cancel", "Stop a run; what is finished stays, and submitting again goes on from there."
    ),
    "evaluate": Command(
        "lmr.cli.evaluate:evaluate_command", "Score a submission by a protocol of the field."
    ),
    "calibrate": Command(
        "lmr.cli.calibrate:calibrate",
        "Fit verify.min_inliers to a wanted precision; lmr run --config takes the result.",
    ),
    "weights": Command("lmr.cli.weights:weights_app", "Weights of networks: list, fetch, verify, convert."),
    "cluster": Command(
        "lmr.cli.clusters:cluster_app", "Clusters: certs, scheduler, worker; on AWS: up, down."
    ),
    "dashboard": Command(
        "lmr.cli.cluster:dashboard",
        "Open a tunnel to the dashboard, which listens on a private address, or print it.",
    ),
    "render": Command(
        "lmr.cli.render:render", "Render photos of a small synthetic world of landmarks, with its solution."
    ),
    "files": Command(
        "lmr.cli.files:copy_files",
        "Copy what comes with lmr into a folder: workflows, deploy/, docker/, guides, and the code.",
    ),
}


class _Commands(LazyGroup):
    table = COMMANDS


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def root() -> None:
    """Find every photo of the same landmark in a million, as distributed Dask workflows."""


@app.command()
def version(
    all_: Annotated[bool, typer.Option("--all", help="Python's and the libraries' too.")] = False,
) -> None:
    """Print the version."""
    if all_:
        from lmr.versions import line

        print(line())
    else:
        print(__version__)


def main() -> None:
    """Run the command line; a user's error becomes a few lines and exit code 1."""
    try:
        app()
    except LmrError as error:
        _tell(f"[bold red]error[/] {_escaped(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        _stopped()
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:  # what the library of the command line makes of Ctrl-C
            _stopped()
        raise


INTERRUPTED = 130


def _stopped() -> None:
    _tell("stopped; run the same command again to go on from here")
    sys.exit(INTERRUPTED)


def _tell(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
