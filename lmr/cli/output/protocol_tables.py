"""Tables of a run's scores by protocols, and of published figures beside them. Only text; decides nothing."""

from rich.table import Table
from rich.text import Text

from lmr.evaluation.protocols.published import Row
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.folder.protocol_files import Means, read_protocols, read_published
from lmr.text import printable

__all__ = ["protocol_tables"]


def protocol_tables(run: RunDatasets) -> list[Table]:
    """Show the scores by protocols after each stage, and what papers print; a table of each that is there."""
    means, rows = read_protocols(run), read_published(run)
    pruned = bool(run.about.get("choices", {}).get("prune"))
    return [*([_means(means, run)] if means else []), *([_published(rows, pruned)] if rows else [])]


def _means(means: Means, run: RunDatasets) -> Table:
    table = Table(title="by protocol", title_justify="left")
    for name in ("protocol", "measure"):
        table.add_column(name)
    for stage in run.rankings:
        table.add_column(Text(printable(run.label(stage))), justify="right", overflow="fold")
    for protocol, metrics in means.items():
        for metric, stages in metrics.items():
            table.add_row(protocol, metric, *(_score(stages[stage]) for stage in run.rankings))
    return table


def _score(mean: float) -> str:
    return f"{mean:.4f}" if mean == mean else "–"


def _published(rows: list[Row], pruned: bool) -> Table:
    # The run's own row has all of them, in their order.
    protocols = next(list(row.values) for row in rows if row.own)
    note = "; theirs are of the whole data set, this run is of its first shards" if pruned else ""
    table = Table(title=f"beside published figures, mAP in percent{note}", title_justify="left")
    table.add_column("method", overflow="fold")
    for name in protocols:
        table.add_column(Text(printable(name)), justify="right")
    table.add_column("published in", overflow="fold")
    for row in rows:
        values = (f"{row.values[name]:.2f}" if name in row.values else "–" for name in protocols)
        style = "bold" if row.own else ""
        table.add_row(Text(printable(row.method)), *values, Text(printable(row.cited)), style=style)
    return table
