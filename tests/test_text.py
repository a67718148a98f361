"""Names of files reach terminals, pages and spreadsheets as text only."""

import csv
import doctest
import io

import pytest
from rich.console import Console

from lmr import text
from lmr.cli.output.tables import unusable_table
from lmr.errors import LmrError
from lmr.evaluation.pages.report import Report, Undecoded, render_report
from lmr.steps.results.folder.files import Unusable
from lmr.text import csv_cell, printable

EVIL = [
    "a\x1b]0;title\x07b",
    "a\rb",
    "a\nb",
    "a\u202egpj.exe",
    "a\x9b31mb",
    "a\udcffb",
    "a\u2028b",
    "a\0b",
    "a\x7fb",
]


@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_what_a_terminal_obeys_is_shown_as_an_escape(name):
    shown = printable(name)
    assert shown.isprintable()
    assert shown.startswith("a")
    assert "\\" in shown
    shown.encode()  # also what is no UTF-8


@pytest.mark.parametrize("name", ["Zürich", "東京", "e\u0301", "photo (1) [2].jpg", "क्\u200dष", "👩\u200d👧"])
def test_names_of_all_languages_stay(name):
    assert printable(name) == name


@pytest.mark.parametrize("name", [*EVIL, "[red]a[/red]", "[/]"], ids=ascii)
def test_tables_errors_and_pages_hold_no_control_character(name):
    out = io.StringIO()
    Console(file=out, width=120, force_terminal=True, color_system=None).print(
        unusable_table([Unusable("gallery", name, f"not {name}")])
    )
    assert printable(name) in out.getvalue()
    page = render_report(Report(run=name, undecoded=[Undecoded(photo_id=name, reason=name)]))
    error = str(LmrError("what", got=name, fix="fix"))
    for shown in (out.getvalue(), page, error):
        for character in "\x1b\x07\x9b\u202e\udcff\u2028\0\x7f\r":
            assert character not in shown


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", 'a"b', '"a', '"a"b', "a,b", "plain"]
)
def test_cells_are_text_for_spreadsheets_and_parsers(name):
    ((cell,),) = csv.reader(io.StringIO(csv_cell(name)))
    assert cell.lstrip("'") == printable(name)
    assert not cell.startswith(("=", "+", "-", "@"))


def test_examples():
    assert doctest.testmod(text).failed == 0
