"""Kaggle's files: round trips, the forms that people have on disk, and errors that name the line."""

import bz2
import doctest
import gzip
import lzma
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.evaluation.protocols import kaggle
from lmr.evaluation.protocols.kaggle import (
    parse_recognition_solution,
    parse_recognition_submission,
    parse_solution,
    parse_submission,
    recognition_csv,
    submission_csv,
)
from tests.support.shared import shared

ids = st.text(
    st.characters(blacklist_categories=("C", "Z"), blacklist_characters=',"'), min_size=1, max_size=8
)


def test_worked_examples():
    result = doctest.testmod(kaggle)
    assert result.attempted >= 2
    assert result.failed == 0


# What is listed may stand in brackets, but a list may not look as if a program had printed it.
listed_ids = ids.filter(lambda one: one[0] not in "[({")


@settings(max_examples=40, deadline=None)
@given(predictions=st.dictionaries(ids, st.lists(listed_ids, max_size=5), min_size=1, max_size=6))
def test_a_submission_reads_back_the_same(predictions):
    back = parse_submission(submission_csv(predictions))
    assert back == predictions
    assert list(back) == list(predictions)


def test_ids_may_stand_in_brackets():
    predictions = {"[]": ["(1)"], "[5]": ["(a)", "b", "(c)"], "{x}": ["[5]"]}
    assert parse_submission(submission_csv(predictions)) == predictions


@settings(max_examples=40, deadline=None)
@given(
    predictions=st.dictionaries(
        ids, st.none() | st.tuples(ids, st.floats(allow_nan=False)), min_size=1, max_size=6
    )
)
def test_a_recognition_submission_reads_back_the_same(predictions):
    named = {photo: prediction for photo, prediction in predictions.items() if prediction is not None}
    assert parse_recognition_submission(recognition_csv(predictions)) == named


@pytest.mark.parametrize(
    "text",
    [
        "id,images\nq1,a b\nq2,\n",
        "id,images\r\nq1,a b\r\nq2,\r\n",
        "\ufeffid,images\nq1,a b\nq2,",
        "id,images\rq1,a b\rq2,",
        'id,images\nq1,"a\nb"\nq2,\n',
        "ID,Images\n q1 , a  b \n\nq2,\n\n",
        '"id","images"\n"q1","a b"\n"q2",""\n',
    ],
)
def test_forms_of_the_same_file(text):
    assert parse_submission(text.encode()) == {"q1": ["a", "b"], "q2": []}
    assert parse_solution(text.encode()) == {"q1": ["a", "b"], "q2": []}


def test_solutions():
    assert parse_solution(b"id,images,Usage\na,x y,Public\nb,z,Ignored\nc,nan,Private\n") == {
        "a": ["x", "y"],
        "b": [],
        "c": [],
    }
    expected = {"a": ["1", "2"], "b": [], "c": []}
    for header, tail in (("id,landmarks,Usage", ",Public"), ("id,landmark", ""), ("id,landmarks", "")):
        text = f"{header}\na,1 2{tail}\nb,None{tail}\nc,{tail}\n"
        assert parse_recognition_solution(text.encode()) == expected
    ignored = b"id,landmark,Usage\na,1,Public\nb,2,Ignored\n"
    assert parse_recognition_solution(ignored) == {"a": ["1"]}


def test_the_development_set():
    folder = shared("data/landmarks")
    solution = parse_solution((folder / "retrieval_solution.csv").read_bytes())
    assert len(solution) == 118
    assert sum(map(bool, solution.values())) == 99
    assert max(map(len, solution.values())) == 37
    landmarks = parse_recognition_solution((folder / "recognition_solution.csv").read_bytes())
    assert landmarks.keys() == solution.keys()
    assert [bool(landmarks[q]) for q in solution] == [bool(right) for right in solution.values()]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "holds no lines\ngot: an empty file"),
        ("\n\n", "holds no lines\ngot: an empty file"),
        ("id,images\n", "holds no lines\ngot: a header and nothing else"),
        ("q1,a b\n", "line 1 is not the header\ngot: q1,a b\nfix: put a header before it"),
        ("id,images,Usage\nq,a,Public\n", "line 1 is not the header"),
        ("id,images\nq1,a\nq2,b\nq1,c\nq2,d\n", "twice (2×)\ngot: q1 (lines 2 and 4), q2 (lines 3 and 5)"),
        ("id,images\nq1,a,b\n", "an id and 2 columns (1×)\ngot: line 2: q1,a,b"),
        ("id,images\nq1\n,a b\n", "an id and 2 columns (2×)\ngot: line 2: q1, line 3: ,a b"),
        ('id,images\nq1,"a,b"\n', "not separated by spaces (1×)\ngot: line 2: a,b"),
        (
            "id,images\nq1,['a' 'b']\nq2,[1 2]\n",
            "not separated by spaces (2×)\ngot: line 2: ['a' 'b'], line 3: [1 2]",
        ),
        ('id,images\nq1,"a b\nq2,c\n', "line 2 has a quote that does not end"),
        (b"id,images\nq1,caf\xe9\n", "is not UTF-8 text: line 2"),
        ("id,images\nq1,a\n".encode("utf-16"), "text in UTF-16"),
        ("id,images\nq1,a\n".encode("utf-16-le"), "text in UTF-16LE"),
        ("id,images\nq1,a\n".encode("utf-16-be"), "text in UTF-16BE"),
        ("id,images\nq9," + "x " * 101, "more than 100 photos (1×)\ngot: query q9 has 101 (line 2)"),
        (
            "id,images\nq1\nq2,a\nq2,b\n",
            "columns (1×); ids that stand there twice (1×)\ngot: line 2: q1; q2",
        ),
        ("id,landmark\nq,a\n", "line 1 is not the header"),
    ],
)
def test_a_wrong_submission_is_explained(data, message):
    with pytest.raises(LmrError) as error:
        parse_submission(data if isinstance(data, bytes) else data.encode(), "mine.csv")
    assert str(error.value).startswith("mine.csv")
    assert message in str(error.value)
    assert error.value.fix


def test_no_more_than_five_offenders_are_shown():
    text = "id,images\n" + "".join(f"q{n},a\nq{n},b\n" for n in range(7))
    with pytest.raises(LmrError, match=r"twice \(7×\)") as error:
        parse_submission(text.encode())
    assert "q4 (lines 10 and 11) …" in str(error.value)
    assert "q5" not in str(error.value)


@pytest.mark.parametrize(
    ("write", "command"),
    [
        (gzip.compress, "gunzip"),
        (bz2.compress, "bunzip2"),
        (lzma.compress, "unxz"),
        (lambda data: data.decode().encode("utf-16"), "iconv"),
        (lambda data: data.decode().encode("utf-32"), "iconv"),
        (lambda data: data.decode().encode("utf-16-le"), "iconv"),
        (lambda data: data.replace(b",", b";"), "tr"),
        (lambda data: data.replace(b",", b"\t"), "tr"),
        (lambda data: data.replace(b",", b"|"), "tr"),
        (lambda data: b"".join(b"%d,%b" % (n, line) for n, line in enumerate(data.splitlines(True))), "cut"),
        (lambda data: b"Unnamed: 0," + data.replace(b"\nq", b"\n7,q"), "cut"),
        (lambda data: data.removeprefix(b"id,images\n"), "sed"),
        (lambda data: data.replace(b",a ", b",\xe9 "), "iconv"),
    ],
)
def test_the_command_in_the_fix_mends_the_file(tmp_path, write, command):
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    suffix = {"gunzip": ".gz", "bunzip2": ".bz2", "unxz": ".xz"}.get(command, "")
    data = b"id,images\nq1,a b\nq2,c\n"
    path = tmp_path / f"new.csv{suffix}" if suffix else tmp_path / "old.csv"
    path.write_bytes(write(data))
    with pytest.raises(LmrError) as error:
        parse_submission(path.read_bytes(), path.name)
    fix = next(part for part in re.split(r"[;:(] ?(?![^']*' )", error.value.fix) if part.startswith(command))
    subprocess.run(fix, shell=True, check=True, cwd=tmp_path)
    found = parse_submission((tmp_path / "new.csv").read_bytes())
    assert found == {"q1": ["é" if b"\xe9" in path.read_bytes() else "a", "b"], "q2": ["c"]}


@pytest.mark.parametrize("space", [" ", "\t", "\v", "\x1f", "\u00a0", "\u2003"])
def test_photos_are_counted_whatever_space_parts_them(space):
    hundred = "id,images\nq," + space.join(["x"] * 100)
    assert len(parse_submission(hundred.encode())["q"]) == 100
    with pytest.raises(LmrError, match="query q has 101"):
        parse_submission(f"{hundred}{space}x".encode())


def test_a_solution_may_be_longer_than_a_submission():
    assert len(parse_solution(("id,images\nq," + "x " * 50_000).encode())["q"]) == 50_000
    long = ("id,images\nq," + "x " * 5_000).encode()
    assert len(parse_submission(long, max_photos=None)["q"]) == 5_000
    with pytest.raises(LmrError, match="line 1 is not the header"):
        parse_recognition_solution(b"id,images\nq,a\n")


def test_a_wrong_recognition_submission_is_explained():
    cells = ("tower", "tower high", "tower 0.5 0.6", "tower nan")
    text = "id,landmarks\n" + "".join(f"p{n},{cell}\n" for n, cell in enumerate(cells))
    with pytest.raises(LmrError, match=r"without one landmark and its confidence \(4×\)") as error:
        parse_recognition_submission(text.encode())
    assert "photo p3 has 'tower nan' (line 5)" in str(error.value)


def test_what_would_break_the_file_is_refused():
    assert submission_csv({"q": ["x"] * 100}).count(b"x") == 100
    with pytest.raises(LmrError, match="1 queries have more than 100 photos"):
        submission_csv({"q": ["x"] * 101})
    for bad in ("a b", "a,b", "", "a\n", 'a"', " a", "\u2003"):
        with pytest.raises(LmrError, match="1 ids would break the file"):
            submission_csv({"q": ["fine", bad]})
        with pytest.raises(LmrError, match="would break the file"):
            submission_csv({bad: ["fine"]})
        with pytest.raises(LmrError, match="would break the file"):
            recognition_csv({"p": (bad, 1.0)})
