"""Ids are compared before scores are taken: what is odd is named, and what cannot be right is an error."""

import doctest

import pytest

from lmr.errors import LmrError
from lmr.evaluation.protocols import sanity
from lmr.evaluation.protocols.sanity import check_rankings, check_recognition, plain_spelling
from lmr.evaluation.protocols.table import evaluate, find_protocol
from tests.support.shared import shared


def test_worked_examples():
    result = doctest.testmod(sanity)
    assert result.attempted >= 1
    assert result.failed == 0


def test_nothing_odd_is_no_notice():
    assert check_rankings({"q": ["a", "x"], "r": ["b"]}, {"q": ["a"], "r": ["b"], "none": []}) == []
    assert check_recognition({"q": ("a", 0.5)}, {"q": ["a"], "none": []}) == []


@pytest.mark.parametrize(
    ("predictions", "right", "message"),
    [
        (
            {"zz": ["a"]},
            {"q": ["a"]},
            "no query of the submission is in the solution, so nothing can be right",
        ),
        ({"q.jpg": ["a"]}, {"q": ["a"]}, "no query of the submission is in the solution, but 1 differ"),
        ({"1": ["00012", "00034"]}, {"1": ["12", "34"]}, "but 2 differ by spelling alone"),
        ({"q": ["x", "y"]}, {"q": ["a"]}, "no photo of the submission is in the solution, so nothing"),
        ({"q": []}, {"q": ["a"]}, "the submission names no photo for any id of the solution"),
    ],
)
def test_where_nothing_can_be_right_it_is_an_error(predictions, right, message):
    with pytest.raises(LmrError, match=message) as error:
        check_rankings(predictions, right)
    assert error.value.got
    assert error.value.fix


@pytest.mark.parametrize(
    ("predicted", "known"),
    [
        ("00012", "12"),
        ("12.0", "12"),
        ("0012.0", "12"),
        ("a1.jpg", "a1"),
        ("A1.JPEG", "a1"),
        ("index/a/b1.png", "b1"),
        ("index\\b1", "b1"),
        ("cafe\u0301", "caf\u00e9"),
        ("000", "0"),
    ],
)
def test_spellings(predicted, known):
    assert plain_spelling(predicted) == plain_spelling(known)
    for one, other in ((predicted, known), (known, predicted)):
        with pytest.raises(LmrError, match="differ by spelling alone") as error:
            check_rankings({"q": [one, "x"]}, {"q": [other]})
        assert f"{one} for {other}" in error.value.got
        notices = check_rankings({"q": ["good", one]}, {"q": ["good", other]})
        assert notices == [f"1 photo is spelled otherwise than in the solution: {one} for {other}"]


def test_other_ids_are_not_taken_for_spellings():
    for one, other in (("120", "12"), ("a.b", "a"), ("0a", "a"), ("1e5", "100000")):
        assert plain_spelling(one) != plain_spelling(other)


def test_odd_ids_are_counted_and_the_first_five_named():
    right = {f"q{n}": ["a"] for n in range(20)} | {"none": []}
    some = {f"q{n}": ["a"] for n in range(12)}
    unknown = {f"z{n}": ["a"] for n in range(7)}
    notices = check_rankings({**some, **unknown}, right)
    assert notices == [
        "7 queries are not in the solution and are not scored: z0, z1, z2, z3, z4 …",
        "8 queries of the solution's 20 have no prediction and count as 0: q12, q13, q14, q15, q16 …",
    ]
    few = check_rankings({"q0": ["a"]}, right)
    assert few[0].startswith(
        "19 queries of the solution's 20 have no prediction and count as 0 (more than half"
    )


def test_queries_among_the_photos_and_repeats_are_named():
    right = {"q": ["a", "b"], "r": ["b", "b"], "s": ["c"]}
    notices = check_rankings({"q": ["q", "a", "a"], "r": ["s", "b"], "s": ["nan"]}, right)
    assert [notice.split(": ")[-1] for notice in notices] == ["q", "r", "nan", "q", "s"]
    # Queries are named in the submission's order, though lists are scored in that of the solution.
    turned = check_rankings({"r": ["b", "b"], "q": ["a", "a"]}, {"q": ["a"], "r": ["b"]})
    assert [notice.split(": ")[-1] for notice in turned] == ["r, q"]
    classic = check_rankings({"q": ["q", "a"]}, {"q": ["a"]}, queries_in_gallery=True)
    assert classic == []


def test_recognition():
    with pytest.raises(LmrError, match="no photo of the submission is in the solution"):
        check_recognition({"z": ("a", 1.0)}, {"q": ["a"]})
    with pytest.raises(LmrError, match="no landmark of the submission is in the solution, but 1 differ"):
        check_recognition({"q": ("012", 1.0)}, {"q": ["12"]})
    notices = check_recognition({"q": ("a", 1.0), "z": ("a", 1.0)}, {"q": ["a"], "r": ["b"], "n": []})
    assert notices == [
        "1 photo is not in the solution and is not scored: z",
        "1 photo of the solution's 2 has no prediction and counts as 0: r",
    ]


# File -> its score as a submission against sol.csv, and of sol.csv against it; or what the error says.
ODD_FILES = {
    "bom_crlf.csv": (1.0, 1.0),
    "commasol.csv": ("not separated by spaces", "not separated by spaces"),
    "cr_only.csv": (1.0, 1.0),
    "dup.csv": (0.875, 0.75),
    "dupsol.csv": (1.0, 2.5 / 3),
    "emptyl.csv": (0.5, 1.0),
    "idx.csv": ("column before the ids", "column before the ids"),
    "listsol.csv": ("not separated by spaces", "not separated by spaces"),
    "many.csv": ("more than 100 photos", 0.5),
    "nan.csv": (0.5, 1.0),
    "nansol.csv": (0.5, 1.0),
    "nlquoted.csv": (1.0, 1.0),
    "nosol.csv": ("nothing can be right", "nothing to score"),
    "nosub.csv": ("nothing can be right", "nothing can be right"),
    "partial.csv": (0.5, 0.5),
    "quoted.csv": (1.0, 1.0),
    "semi.csv": ("separates its columns by semicolons", "separates its columns by semicolons"),
    "sol.csv": (1.0, 1.0),
    "sol.csv.gz": ("a gzip file", "a gzip file"),
    "sp.csv": (1.0, 1.0),
    "usage.csv": ("is not the header", 1.0),
    "utf16.csv": ("text in UTF-16", "text in UTF-16"),
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_files_get_their_right_outcome(name):
    folder = shared("cases/submissions")
    plain, odd = (folder / "sol.csv").read_bytes(), (folder / name).read_bytes()
    for outcome, files in zip(ODD_FILES[name], ((odd, plain), (plain, odd)), strict=True):
        if isinstance(outcome, float):
            found = evaluate(find_protocol("map_at_100"), *files)
            assert found.scores["map_at_100"].mean == pytest.approx(outcome)
        else:
            with pytest.raises(LmrError) as error:
                evaluate(find_protocol("map_at_100"), *files)
            assert outcome in str(error.value)
            assert error.value.fix


@pytest.mark.parametrize("name", ["intsub.csv", "fsub.csv"])
def test_ids_that_a_program_took_for_numbers_are_an_error(name):
    folder = shared("cases/submissions")
    with pytest.raises(LmrError, match="differ by spelling alone"):
        evaluate(
            find_protocol("map_at_100"), (folder / name).read_bytes(), (folder / "intsol.csv").read_bytes()
        )
