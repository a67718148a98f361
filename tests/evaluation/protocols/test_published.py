"""Published figures: the file that comes along is whole, and a user's own is read or refused by name."""

from pathlib import Path

import pytest

from lmr.errors import LmrError
from lmr.evaluation.protocols.published import COLUMNS, parse_figures, shipped_figures
from lmr.evaluation.protocols.table import find_protocol

HEADER = ",".join(COLUMNS)


def test_what_comes_along_is_cited_and_told_once():
    figures = parse_figures(Path(shipped_figures()).read_bytes(), "published.csv")
    assert len({(f.method, f.data_set, f.protocol) for f in figures}) == len(figures) > 40
    for figure in figures:
        assert find_protocol(figure.protocol).name == figure.protocol
        assert figure.paper
        assert figure.source
        assert 0 < figure.value < 100
    # The authors' own README prints these for the example features of the paper.
    example = {(f.data_set, f.protocol): f.value for f in figures if f.method == "R-[37]-GeM"}
    assert example["revisited-oxford", "revisited-medium"] == 64.67
    assert example["revisited-paris", "revisited-hard"] == 56.32


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "wrong header"),
        ("method,value\nA,3\n", "begin with the line"),
        (f"{HEADER}\nA,d,p,x,,,\n", r"no percent \(1×\)"),
        (f"{HEADER}\nA,d,p,101,,,\n", "no percent"),
        (f"{HEADER}\nA,d,p,nan,,,\n", "no percent"),
        (f"{HEADER}\nA,d,p,1,B, C,Table 1,\n", "other than 7 columns"),
        (f"{HEADER}\n,d,p,1,,,\n", "without a name"),
    ],
)
def test_a_file_that_is_none_is_refused(text, says):
    with pytest.raises(LmrError, match=says):
        parse_figures(text.encode(), "mine.csv")
