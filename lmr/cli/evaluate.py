"""`lmr evaluate`: score a submission."""

import json
from typing import Annotated

import typer
from rich.console import Console

from lmr.errors import SettingsError
from lmr.evaluation import kaggle, scorers

__all__ = ["evaluate"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def evaluate(
    submission: Annotated[str, typer.Argument(help="CSV id,images.")],
    solution: Annotated[str, typer.Option(help="CSV id,images.")],
    protocol: Annotated[str, typer.Option(help="map_at_100.")] = "map_at_100",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a submission."""
    if protocol != "map_at_100":
        raise SettingsError("unknown protocol", got=protocol, fix="use map_at_100")
    predictions, truth = kaggle.read_submission(submission), kaggle.read_solution(solution)
    known = {query: images for query, images in predictions.items() if query in truth}
    if len(known) < len(predictions):
        err.print(f"{len(predictions) - len(known)} queries are not in the solution and are not scored")
    scores = scorers.map_at_100(known or predictions, truth)
    counted = int((scores.per_query == scores.per_query).sum())
    if as_json:
        print(json.dumps({"protocol": protocol, "score": scores.mean, "queries": counted}))
    else:
        out.print(f"{protocol} {scores.mean:.4f} over {counted} queries")
