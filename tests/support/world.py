"""A tiny rendered world with a few damaged photos, and how to run the workflow on it."""

import csv
import json
from pathlib import Path

from typer.testing import CliRunner

from lmr.cli.main import app
from lmr.errors import LmrError
from lmr.testing import World, write_world

TINY = World(
    landmarks=5,
    gallery_per_landmark=(3, 6),
    queries=8,
    distractors=12,
    queries_without_landmark=1,
    long_side_px=320,
    seed=3,
)


def make(folder):
    """Write the tiny world, with two damaged gallery photos and a damaged query."""
    write_world(TINY, folder)
    (folder / "gallery" / "aaaa_empty.jpg").write_bytes(b"")
    (folder / "gallery" / "zzzz_text.jpg").write_bytes(b"this is not a photo")
    whole = min((folder / "queries").glob("*.jpg")).read_bytes()
    (folder / "queries" / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    return folder


def arguments(world, out, *more):
    """Return a command on the tiny world; VLAD describes its photos where nothing else is chosen.

    No network is loaded then, which keeps tests short. `test_default.py` runs what everybody gets.
    """
    if not any(
        one in str(given) for given in more for one in ("--global", "--preset", "describe.descriptor")
    ):
        more = ("--global", "vlad", *more)
    return [
        "run",
        "workflows/retrieval.py",
        "--gallery",
        str(world / "gallery"),
        "--queries",
        str(world / "queries"),
        "--out",
        str(out),
        "--set",
        "ingest.photos_per_shard=10",
        *more,
    ]


def lmr(*args):
    """Run the command line in this process; errors of the user are raised."""
    done = CliRunner().invoke(app, list(args), catch_exceptions=True)
    if isinstance(done.exception, LmrError):
        raise done.exception
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def submission(out):
    with open(Path(out) / "submission.csv") as file:
        return {row["id"]: row["images"].split() for row in csv.DictReader(file)}


def scores(out):
    return json.loads((Path(out) / "scores.json").read_text())
