"""`lmr calibrate`: the threshold of confident matches, from labelled pairs."""

from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from lmr import storage
from lmr.evaluation.calibrate import Curve, fit_threshold, precision_curve
from lmr.steps.results.calibrate import labelled_pairs, store_calibration
from lmr.steps.results.scores import read_solution

__all__ = ["calibrate"]

out = Console(highlight=False)


def calibrate(
    run: Annotated[str, typer.Argument(help="Folder or URL of a finished run.")],
    solution: Annotated[str, typer.Option(help="CSV id,images: which photos are right.")],
    precision: Annotated[
        float, typer.Option(help="The precision that confident matches should have.")
    ] = 0.99,
    sure: Annotated[
        bool, typer.Option("--sure", help="Ask it of the precision's lower bound, not of its estimate.")
    ] = False,
    confidence: Annotated[float, typer.Option(help="Confidence of the precision's lower bound.")] = 0.95,
    out_: Annotated[
        str | None, typer.Option("--out", help="Folder to write to (default: calibration/ in the run).")
    ] = None,
) -> None:
    """Fit verify.min_inliers to a wanted precision; lmr run --config takes the result."""
    pairs = labelled_pairs(run, read_solution(solution))
    curve = precision_curve(pairs.inliers, pairs.right, confidence=confidence)
    threshold = fit_threshold(curve, precision, sure=sure)
    wanted = f"precision {precision:g}" + (f" with {confidence:.0%} confidence" if sure else "")
    settings = store_calibration(out_ or storage.join(run, "calibration"), pairs, curve, threshold, wanted)
    out.print(_table(curve, threshold))
    out.print(
        f"{pairs.features}: {curve.pairs} pairs of {pairs.queries} queries, {curve.right_pairs} are right\n"
        f"verify.min_inliers = {threshold} has {wanted}\n"
        f"settings   {settings}",
        soft_wrap=True,
    )
    if curve.precision_low[threshold] < precision:
        out.print(
            f"with {confidence:.0%} confidence the precision is at least"
            f" {curve.precision_low[threshold]:.4f}, which is less: give more labelled pairs, or --sure",
            soft_wrap=True,
        )


def _table(curve: Curve, threshold: int) -> Table:
    table = Table(title="pairs with more than so many inliers")
    for name in ("more than", "pairs", "right", "precision", "at least", "recall"):
        table.add_column(name, justify="right")
    last = int(np.flatnonzero(curve.accepted > 0)[-1])
    near = {threshold + step for step in (-3, -2, -1, 0, 1, 2, 5)}
    for t in sorted(t for t in {0, 5, 10, 20, 40, 80, *near} if 0 <= t <= last):
        shares = (curve.precision[t], curve.precision_low[t], curve.recall[t])
        cells = [str(t), str(curve.accepted[t]), str(curve.right[t]), *(f"{share:.4f}" for share in shares)]
        table.add_row(*cells, style="bold" if t == threshold else None)
    return table
