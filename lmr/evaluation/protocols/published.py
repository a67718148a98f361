"""Figures that papers print, and a run's own beside them.

`published.csv` beside this module holds the figures that come along, a row for each. Users may give their
own:

================  =====================================================================
column            holds
================  =====================================================================
``method``        what the paper calls it
``data_set``      a name of `lmr dataset list`, or the name of a folder
``protocol``      a name of the table of protocols, such as ``revisited-medium``
``value``         percent, as papers print it
``paper``         where it was published first
``table``         the paper's table, where that is known
``source``        what it was copied from
================  =====================================================================
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from lmr.evaluation.table_text import Faults, cells_of, text_of

__all__ = ["COLUMNS", "Figure", "Row", "beside", "parse_figures", "shipped_figures"]

COLUMNS = ("method", "data_set", "protocol", "value", "paper", "table", "source")


@dataclass(frozen=True)
class Figure:
    """One published figure; its attributes are the columns of the file."""

    method: str
    data_set: str
    protocol: str
    value: float
    paper: str
    table: str
    source: str

    @property
    def cited(self) -> str:
        """Where the figure stands, as people cite it."""
        return ", ".join(part for part in (self.paper, self.table) if part)


@dataclass(frozen=True)
class Row:
    """A method, and what it reached by each protocol.

    Attributes
    ----------
    method
        Its name.
    values
        Protocol to percent; a protocol that nobody has published is missing.
    cited
        Where that stands; empty for a run's own.
    own
        Whether it is a run's own.
    """

    method: str
    values: Mapping[str, float]
    cited: str = ""
    own: bool = False


def shipped_figures() -> str:
    """Return the path of the figures that come along."""
    return str(resources.files("lmr.evaluation.protocols") / "published.csv")


def parse_figures(data: bytes, name: str) -> list[Figure]:
    """Read a file of published figures.

    Raises
    ------
    LmrError
        If it is no such file; with every fault of it.
    """
    faults = Faults(name)
    rows = list(cells_of(text_of(data, name), name))
    header = ",".join(rows[0][1]) if rows else ""
    if header != ",".join(COLUMNS):
        faults.add("a wrong header", repr(header[:80]), f"begin with the line {','.join(COLUMNS)}")
        rows = []
    figures = []
    for line, cells in rows[1:]:
        if len(cells) != len(COLUMNS):
            faults.add(
                f"lines of other than {len(COLUMNS)} columns",
                f"line {line} has {len(cells)}",
                'quote commas: "a, b"',
            )
            continue
        value = _percent(cells[3])
        if value is None:
            faults.add(
                "values that are no percent", f"{cells[3]!r} (line {line})", "write 0 to 100, such as 64.67"
            )
        elif not all(cells[:3]):
            faults.add("lines without a name", f"line {line}", "name method, data_set and protocol")
        else:
            method, data_set, protocol, _, paper, table, source = cells
            figures.append(Figure(method, data_set, protocol, value, paper, table, source))
    faults.raise_if_any()
    return figures


def _percent(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 100 else None


def beside(figures: Iterable[Figure], own: Mapping[str, float], name: str) -> list[Row]:
    """Return a run's own figures among the published ones of the same protocols, the best first.

    Parameters
    ----------
    figures
        Of one data set.
    own
        Protocol to the run's own score, from 0 to 1.
    name
        What the run's own row is called.

    Examples
    --------
    >>> figures = [Figure("GeM", "d", "hard", 38.47, "A, 2018", "", "")]
    >>> [(row.method, row.values) for row in beside(figures, {"hard": 0.4}, "mine")]
    [('mine', {'hard': 40.0}), ('GeM', {'hard': 38.47})]
    """
    methods: dict[tuple[str, str], dict[str, float]] = {}
    for figure in figures:
        if figure.protocol in own:
            methods.setdefault((figure.method, figure.cited), {})[figure.protocol] = figure.value
    rows = [Row(method, values, cited) for (method, cited), values in methods.items()]
    rows.append(Row(name, {protocol: round(100 * value, 2) for protocol, value in own.items()}, own=True))
    return sorted(rows, key=lambda row: -_leading(row, list(own)))


def _leading(row: Row, protocols: Sequence[str]) -> float:
    """Return what a row is sorted by: the protocol that most papers print, else the first that it has."""
    order = sorted(protocols, key=lambda one: one != "revisited-medium")
    return next((row.values[one] for one in order if one in row.values), -1.0)
