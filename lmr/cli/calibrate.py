"""`lmr calibrate`: the threshold of confident matches and the probability of answers, from labelled pairs."""

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from lmr import storage
from lmr.errors import LmrError
from lmr.evaluation.calibrate import Curve, fit_threshold, precision_curve
from lmr.steps.results.calibration.calibrate import labelled_pairs, store_calibration
from lmr.steps.results.calibration.fit_probability import (
    fit_probability,
    labelled_answers,
    right_photos,
    store_probability,
)
from lmr.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lmr.steps.results.calibration.fit_probability import FittedProbability

__all__ = ["calibrate"]

out = Console(highlight=False)


def calibrate(
    run: Annotated[str, typer.Argument(help="Folder or URL of a finished run.")],
    solution: Annotated[
        str, typer.Option(help="CSV of right photos (id,images); of recognition, id,landmark too.")
    ],
    precision: Annotated[
        float, typer.Option(help="The precision that confident matches should have.")
    ] = 0.99,
    sure: Annotated[
        bool, typer.Option("--sure", help="Ask it of the precision's lower bound, not of its estimate.")
    ] = False,
    confidence: Annotated[float, typer.Option(help="Confidence of the precision's lower bound.")] = 0.95,
    method: Annotated[
        Literal["logistic", "isotonic"],
        typer.Option(help="How the probability bends; isotonic needs many pairs."),
    ] = "logistic",
    folds: Annotated[
        int,
        typer.Option(min=2, max=1000, help="Landmarks are dealt to so many folds; each is judged unseen."),
    ] = 5,
    out_: Annotated[
        str | None, typer.Option("--out", help="Folder to write to (default: calibration/ in the run).")
    ] = None,
) -> None:
    """Fit verify.min_inliers to a wanted precision, and the probability that an answer is right.

    `lmr run` takes the first as --config, the second as --calibration.
    """
    folder, right = out_ or storage.join(run, "calibration"), right_photos(run, solution)
    problem: LmrError | None = None
    try:
        _threshold(run, right, precision, sure, confidence, folder)
    except LmrError as error:
        problem = error  # the probability may be had without a threshold
    try:
        answers = labelled_answers(run, right)
        fitted = fit_probability(answers, method, folds=folds)
    except LmrError as error:
        if problem is not None:
            raise problem from error
        out.print(printable(f"no probability: {error.what} ({error.got})"), soft_wrap=True, markup=False)
        return
    title = f"probability of {len(answers.right):,} answers of {fitted.calibration.about['queries']} queries"
    url = store_probability(folder, fitted, title)
    _tell_probability(fitted, url)
    if problem is not None:
        raise problem


def _threshold(
    run: str,
    solution: "Mapping[str, Sequence[str]]",
    precision: float,
    sure: bool,
    confidence: float,
    folder: str,
) -> None:
    pairs = labelled_pairs(run, solution)
    curve = precision_curve(pairs.inliers, pairs.right, confidence=confidence)
    threshold = fit_threshold(curve, precision, sure=sure)
    wanted = f"precision {precision:g}" + (f" with {confidence:.0%} confidence" if sure else "")
    settings = store_calibration(folder, pairs, curve, threshold, wanted)
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


def _tell_probability(fitted: "FittedProbability", url: str) -> None:
    """Print how probabilities compare with what was right, on queries that they were not fitted on."""
    found, about = fitted.reliability, fitted.calibration.about
    table = Table(title="probability of answers, of landmarks that it was not fitted on")
    for name in ("from", "to", "answers", "right", "mean probability", "share right"):
        table.add_column(name, justify="right")
    for i in np.flatnonzero(found.pairs).tolist():
        bounds = (f"{found.edges[i]:.1f}", f"{found.edges[i + 1]:.1f}")
        counts = (f"{found.pairs[i]:,}", f"{found.right[i]:,}")
        table.add_row(*bounds, *counts, f"{found.said[i]:.3f}", f"{found.seen[i]:.3f}")
    out.print(table)
    other = "; ".join(f"{name} {one.brier:.5f}" for name, one in fitted.held_out.items())
    out.print(
        f"Brier score {found.brier:.5f} ({other}; the bare share of right answers {found.base_brier:.5f})\n"
        f"mean gap {found.calibration_error:.4f}; {about['pairs']:,} answers of {about['queries']} queries,"
        f" {about['right_pairs']:,} are right, of {about['landmarks']} landmarks\n"
        f"calibration   {url}",
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
