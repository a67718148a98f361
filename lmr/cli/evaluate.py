"""`lmr evaluate`: score a submission by any protocol of the field."""

import io
import json
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import typer
from rich.console import Console

from lmr import storage
from lmr.errors import SettingsError
from lmr.evaluation.protocols.table import (
    METRICS,
    PROTOCOLS,
    Evaluation,
    evaluate,
    find_protocol,
    paired,
)
from lmr.evaluation.scores import first_five
from lmr.evaluation.statistics import Comparison, Interval

__all__ = ["evaluate_command"]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_PROTOCOLS = "\n\n".join(f"{protocol.name}: {protocol.says}" for protocol in PROTOCOLS.values())
_METRICS = "; ".join(f"{name}: {metric.says}" for name, metric in METRICS.items())


def evaluate_command(
    submission: Annotated[str, typer.Argument(help="CSV id,images (of gap: id,landmarks).")],
    solution: Annotated[str, typer.Option(help="The truth, in the form that the protocol needs.")],
    protocol: Annotated[str, typer.Option(help=f"One of: {', '.join(PROTOCOLS)}.")] = "map_at_100",
    metric: Annotated[
        list[str] | None,
        typer.Option(help=f"Further measures, as recall@1,5,10; may be repeated. {_METRICS}."),
    ] = None,
    per_query: Annotated[
        str | None, typer.Option(help="Write the scores of every query to this .csv or .parquet.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="Another submission: differences, query by query.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a submission."""
    if per_query is not None and not per_query.endswith((".csv", ".parquet")):
        raise SettingsError(
            "scores are written as CSV or Parquet", got=per_query, fix="name a file that ends so: scores.csv"
        )
    chosen = find_protocol(protocol, metric or [])
    truth = storage.read(solution)
    found = evaluate(chosen, storage.read(submission), truth, names=(submission, solution))
    other = evaluate(chosen, storage.read(compare), truth, names=(compare, solution)) if compare else None
    for name, one in ((submission, found), (compare, other)):
        for notice in one.notices if one is not None else ():
            err.print(notice if other is None else f"{name}: {notice}", markup=False)
    differences = paired(found, other) if other is not None else {}
    if per_query is not None:
        storage.put(per_query, _table(found, other, per_query))
    if as_json:
        facts = _facts(found)
        if other is not None:
            facts["compare"] = {**_facts(other), "differences": _difference_facts(differences)}
        print(json.dumps(facts))
        return
    _print_scores(found)
    if compare is not None and other is not None:
        out.print(f"compared with {compare}", markup=False)
        _print_scores(other)
        for name, difference in differences.items():
            _print_difference(name, difference, found, other)


evaluate_command.__doc__ = f"Score a submission by a protocol of the field.\n\n{_PROTOCOLS}"


def _print_scores(found: Evaluation) -> None:
    headline, *further = found.scores
    noun = "photos" if found.protocol.recognises else "queries"
    for name in (headline, *further):
        scores, spread = found.scores[name], found.intervals[name]
        label = found.protocol.name if name == headline else name
        count = f" over {scores.counted} {noun}" if name == headline else ""
        out.print(f"{label} {scores.mean:.4f}{count}")
        out.print(f"  standard error {spread.standard_error:.4f}, {_ends(spread)}")


def _print_difference(name: str, found: Comparison, one: Evaluation, other: Evaluation) -> None:
    chance = "" if found.p_value is None else f", p = {found.p_value:.4g}"
    out.print(
        f"{name} {found.difference.value:+.4f} ({_ends(found.difference)}{chance}):"
        f" {found.won} better, {found.lost} worse, {found.tied} equal"
    )
    gains = one.scores[name].per_query - other.scores[name].per_query
    for word, changes in (("better", gains), ("worse", -gains)):
        # NaN, of a query that does not count, sorts to the end and is not above 0.
        changed = [row for row in np.argsort(-changes, kind="stable")[:6] if changes[row] > 0]
        if changed:
            shown = first_five(f"{one.scores[name].query_ids[row]} {gains[row]:+.3f}" for row in changed)
            out.print(f"  most {word}: {shown}", markup=False)


def _ends(spread: Interval) -> str:
    return f"{spread.confidence:.0%} interval {spread.low:.4f} to {spread.high:.4f}"


def _facts(found: Evaluation) -> dict[str, Any]:
    scores = next(iter(found.scores.values()))
    return {
        "protocol": found.protocol.name,
        "score": scores.mean,
        "queries": scores.counted,
        "metrics": {
            name: {"score": one.mean, **_spread_facts(found.intervals[name])}
            for name, one in found.scores.items()
        },
        "notices": list(found.notices),
    }


def _spread_facts(spread: Interval) -> dict[str, Any]:
    return {
        "standard_error": spread.standard_error,
        "interval": [spread.low, spread.high],
        "confidence": spread.confidence,
    }


def _difference_facts(differences: dict[str, Comparison]) -> dict[str, Any]:
    return {
        name: {
            "difference": found.difference.value,
            **_spread_facts(found.difference),
            "p_value": found.p_value,
            "better": found.won,
            "worse": found.lost,
            "equal": found.tied,
        }
        for name, found in differences.items()
    }


def _table(found: Evaluation, other: Evaluation | None, url: str) -> bytes:
    """Return a row per query and a column per metric; a query that does not count has an empty cell."""
    columns: dict[str, Any] = {"id": next(iter(found.scores.values())).query_ids}
    columns |= {name: scores.per_query for name, scores in found.scores.items()}
    if other is not None:
        columns |= {f"{name} of the other": scores.per_query for name, scores in other.scores.items()}
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    file = io.BytesIO()
    if url.endswith(".parquet"):
        pyarrow.parquet.write_table(table, file)
    else:
        pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(quoting_style="needed"))
    return file.getvalue()
