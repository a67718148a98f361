"""The command line: parse, layer settings, hand over to a workflow. No logic of its own."""

import sys
from typing import Annotated

import typer

from lmr import __version__
from lmr.cli import interrupts
from lmr.cli.lazy import Command, LazyGroup, examples_text
from lmr.errors import LmrError

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = {
    "run": Command(
        "lmr.cli.run:run",
        "Run a workflow, or go on with one: only what is missing is made.",
        (
            "lmr run retrieval --gallery photos/ --queries queries/ --out run/",
            "lmr run retrieval --gallery photos/ --queries queries/ --out run/ --plan",
            "lmr run recognition --gallery photos/ --labels labels.csv --queries queries/ --out run/",
            "lmr run retrieval --gallery photos/ --queries queries/ --out run/ --copy-matches found/",
        ),
    ),
    "retry": Command(
        "lmr.cli.retry:retry",
        "Try again what failed for a reason that may pass, and make again only what depends on it.",
        ("lmr retry run/",),
    ),
    "plan": Command(
        "lmr.cli.plan:plan",
        "Tell what a workflow will take and cost on some machines, before anything is started.",
        (
            "lmr plan retrieval --gallery 1000000 --queries 100000 --rates rates.json",
            'lmr plan retrieval --gallery photos/ --queries queries/ --machines "1 x m5.24xlarge"',
        ),
    ),
    "measure": Command(
        "lmr.cli.plan:measure",
        "Measure what each step takes on this machine or cluster, for `lmr plan`; some two minutes.",
        ("lmr measure rates.json",),
    ),
    "submit": Command(
        "lmr.cli.runs:submit",
        "Send a workflow to a scheduler and return at once: it goes on without this machine.",
        (
            "lmr submit retrieval --gallery s3://b/photos --queries s3://b/queries --out s3://b/run "
            "--scheduler tls://host:8786 --tls certs/",
        ),
    ),
    "watch": Command(
        "lmr.cli.runs:watch",
        "Follow a run to its end, from any machine, and show its results; leaving does not stop it.",
        (
            "lmr watch NAME --scheduler tls://host:8786 --tls certs/",
            "lmr watch NAME --web --scheduler tls://host:8786 --tls certs/",
        ),
    ),
    "status": Command(
        "lmr.cli.runs:status",
        "Tell how far a run is, and show the results of one that has ended.",
        ("lmr status NAME --scheduler tls://host:8786 --tls certs/",),
    ),
    "runs": Command(
        "lmr.cli.runs:runs",
        "List the runs that a scheduler knows.",
        ("lmr runs --scheduler tls://host:8786 --tls certs/",),
    ),
    "cancel": Command(
        "lmr.cli.runs:cancel",
        "Stop a run; what is finished stays, and submitting again goes on from there.",
        ("lmr cancel NAME --scheduler tls://host:8786 --tls certs/",),
    ),
    "search": Command(
        "lmr.cli.search:search",
        "Search a finished run's gallery for one photo, or for several, in seconds.",
        ("lmr search run/ photo.jpg", "lmr search run/ *.jpg --page found.html"),
    ),
    "group": Command(
        "lmr.cli.group:group",
        "Group the photos of a finished run's gallery by place, without queries; what is finished is kept.",
        ("lmr group run/",),
    ),
    "serve": Command(
        "lmr.cli.serve:serve",
        "Serve a page on which a run's gallery is searched with photos, and an interface for programs.",
        ("lmr serve run/",),
    ),
    "matches": Command(
        "lmr.cli.report:matches",
        "Tell what was found for each query, and copy the confident matches into folders.",
        ("lmr matches run/", "lmr matches run/ --copy found/ --links"),
    ),
    "report": Command(
        "lmr.cli.report:report",
        "Write the report of a run anew; also of one that has not ended, with what there is.",
        ("lmr report run/", "lmr report s3://bucket/run --pictures 1000"),
    ),
    "export": Command(
        "lmr.cli.export:export",
        "Write a run's results into files of other programs, with ids and paths in all.",
        (
            "lmr export run/ --what pairs --to parquet --out exported/",
            "lmr export run/ --what features --to hloc --out outputs/",
        ),
    ),
    "info": Command(
        "lmr.cli.info:info",
        "Tell what a run's folder holds: workflow, photos, stages, scores, and the size of every dataset.",
        ("lmr info run/",),
    ),
    "clean": Command(
        "lmr.cli.info:clean",
        "Delete datasets of earlier settings, after showing them; what a later run may need is made again.",
        ("lmr clean run/ --keep latest",),
    ),
    "settings": Command(
        "lmr.cli.settings:settings",
        "List the settings of a workflow's steps, with their defaults and ranges.",
        ("lmr settings", "lmr settings verify", "lmr settings diffuse --preset paper"),
    ),
    "graph": Command(
        "lmr.cli.graph:graph",
        "Draw the steps of a workflow and their datasets; no photos are needed.",
        ("lmr graph retrieval -o graph.svg", "lmr graph retrieval --preset gem -o gem.svg"),
    ),
    "evaluate": Command(
        "lmr.cli.evaluate:evaluate_command",
        "Score a submission by a protocol of the field.",
        ("lmr evaluate run/submission.csv --solution solution.csv",),
    ),
    "compare": Command(
        "lmr.cli.compare:compare",
        "Compare runs, or the settings of one run: what differs, which queries were won and lost.",
        ("lmr compare run/", "lmr compare first/ second/"),
    ),
    "calibrate": Command(
        "lmr.cli.calibrate:calibrate",
        "Fit verify.min_inliers to a wanted precision, and the probability that an answer is right.",
        ("lmr calibrate run/ --solution solution.csv",),
    ),
    "weights": Command(
        "lmr.cli.weights:weights_app",
        "Weights of networks: list, fetch, verify, convert.",
        ("lmr weights list",),
    ),
    "dataset": Command(
        "lmr.cli.dataset:dataset_app",
        "Published data sets by name: list, describe, fetch.",
        ("lmr dataset list", "lmr dataset fetch revisited-oxford --data data/"),
    ),
    "cluster": Command(
        "lmr.cli.cluster.app:cluster_app",
        "Clusters: certs, scheduler, worker; on AWS: up, down.",
        ("lmr cluster certs certs/", "lmr cluster --help"),
    ),
    "dashboard": Command(
        "lmr.cli.cluster.machines:dashboard",
        "Open a tunnel to the dashboard, which listens on a private address, or print it.",
        ("lmr dashboard --scheduler tls://host:8786 --tls certs/",),
    ),
    "render": Command(
        "lmr.cli.render:render",
        "Render photos of a small synthetic world of landmarks, with its solution.",
        ("lmr render world/",),
    ),
    "files": Command(
        "lmr.cli.files:copy_files",
        "Copy what comes with lmr into a folder: workflows, deploy/, docker/, guides, and the code.",
        ("lmr files lmr-files/",),
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
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(
    epilog=examples_text(
        (
            "lmr render world/",
            "lmr run retrieval --gallery world/gallery --queries world/queries --out run/",
            "lmr run --help",
        )
    )
)
def root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version, and stop."
        ),
    ] = False,
) -> None:
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
        if interrupts.happened():
            interrupts.end()
        _tell(f"[bold red]error[/] {_escaped(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        interrupts.end()
    except SystemExit as exit_:
        # What the library of the command line makes of Ctrl-C.
        if exit_.code == interrupts.INTERRUPTED or (exit_.code and interrupts.happened()):
            interrupts.end()
        raise
    except Exception:
        if interrupts.happened():
            interrupts.end()
        raise


def _tell(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
