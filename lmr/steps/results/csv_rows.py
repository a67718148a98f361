"""Rows as lines of CSV that a spreadsheet may open."""

import pyarrow as pa

from lmr.text import csv_cell

__all__ = ["csv_header", "csv_lines"]


def csv_header(rows: pa.Table) -> str:
    """Return the line that names the columns."""
    return f"{','.join(rows.column_names)}\n"


def csv_lines(rows: pa.Table) -> str:
    """Return rows as lines of CSV in which a spreadsheet finds nothing to compute; no lists among them."""
    columns = []
    for name in rows.column_names:
        values = rows.column(name)
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            coded = values.combine_chunks().dictionary_encode()
            cells = [csv_cell(text) for text in coded.dictionary.to_pylist()]
            columns.append([cells[i] for i in coded.indices.to_pylist()])
        elif pa.types.is_boolean(values.type):
            columns.append(["true" if value else "false" for value in values.to_pylist()])
        elif pa.types.is_integer(values.type):
            columns.append([str(value) for value in values.to_pylist()])
        else:
            columns.append([f"{value:.7g}" for value in values.to_pylist()])
    return "".join(f"{','.join(line)}\n" for line in zip(*columns, strict=True))
