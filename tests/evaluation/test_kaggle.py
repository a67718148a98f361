"""Kaggle's files: round trips, the forms that people have on disk, and errors that name the line."""

import doctest

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError, StorageError
from lmr.evaluation import kaggle
from lmr.evaluation.kaggle import (
    read_recognition_solution,
    read_recognition_submission,
    read_solution,
    read_submission,
    recognition_csv,
    submission_csv,
    write_recognition_submission,
    write_submission,
)
from tests.support.shared import shared

ids = st.text(
    st.characters(blacklist_categories=("C", "Z"), blacklist_characters=',"'), min_size=1, max_size=8
)


@pytest.fixture
def file(tmp_path):
    def write(data):
        path = tmp_path / "file.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


def test_worked_examples():
    result = doctest.testmod(kaggle)
    assert result.attempted >= 2
    assert result.failed == 0


@settings(max_examples=40, deadline=None)
@given(predictions=st.dictionaries(ids, st.lists(ids, max_size=5), min_size=1, max_size=6))
def test_a_submission_reads_back_the_same(predictions):
    with fsspec.filesystem("memory").open("/submission.csv", "wb") as out:
        out.write(submission_csv(predictions))
    back = read_submission("memory://submission.csv")
    assert back == predictions
    assert list(back) == list(predictions)


@settings(max_examples=40, deadline=None)
@given(
    predictions=st.dictionaries(
        ids, st.none() | st.tuples(ids, st.floats(allow_nan=False)), min_size=1, max_size=6
    )
)
def test_a_recognition_submission_reads_back_the_same(predictions):
    write_recognition_submission("memory://recognition.csv", predictions)
    named = {photo: prediction for photo, prediction in predictions.items() if prediction is not None}
    assert read_recognition_submission("memory://recognition.csv") == named


def test_bytes_and_files(tmp_path):
    path = tmp_path / "new folder" / "submission.csv"
    write_submission(path, {"q2": ["b", "a"], "q1": []})
    assert path.read_bytes() == b"id,images\nq2,b a\nq1,\n"
    write_submission(str(path), {"q": ["c"]})
    assert read_submission(f"file://{path}") == {"q": ["c"]}
    assert [p.name for p in path.parent.iterdir()] == ["submission.csv"]
    write_submission("memory://somewhere/s.csv", {"q": ["c"]})
    assert read_submission("memory://somewhere/s.csv") == {"q": ["c"]}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "submission.csv"
    write_submission(path, {"q": ["old"]})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kaggle.os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        write_submission(path, {"q": ["new"]})
    assert [p.name for p in tmp_path.iterdir()] == ["submission.csv"]
    assert read_submission(path) == {"q": ["old"]}


@pytest.mark.parametrize(
    "text",
    [
        "id,images\nq1,a b\nq2,\n",
        "id,images\r\nq1,a b\r\nq2,\r\n",
        "\ufeffid,images\nq1,a b\nq2,",
        "ID,Images\n q1 , a  b \n\nq2,\n\n",
        '"id","images"\n"q1","a b"\n"q2",""\n',
    ],
)
def test_forms_of_the_same_file(file, text):
    assert read_submission(file(text)) == {"q1": ["a", "b"], "q2": []}
    assert read_solution(file(text)) == {"q1": ["a", "b"], "q2": []}


def test_solutions(file):
    assert read_solution(file("id,images,Usage\na,x y,Public\nb,None,Ignored\nc,,Private\n")) == {
        "a": ["x", "y"],
        "b": [],
        "c": [],
    }
    expected = {"a": ["1", "2"], "b": [], "c": []}
    for header, tail in (("id,landmarks,Usage", ",Public"), ("id,landmark", ""), ("id,landmarks", "")):
        text = f"{header}\na,1 2{tail}\nb,None{tail}\nc,{tail}\n"
        assert read_recognition_solution(file(text)) == expected


def test_the_development_set():
    folder = shared("data/landmarks")
    solution = read_solution(folder / "retrieval_solution.csv")
    assert len(solution) == 118
    assert sum(map(bool, solution.values())) == 99
    assert max(map(len, solution.values())) == 37
    landmarks = read_recognition_solution(folder / "recognition_solution.csv")
    assert landmarks.keys() == solution.keys()
    assert [bool(landmarks[q]) for q in solution] == [bool(right) for right in solution.values()]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "holds no lines\ngot: an empty file"),
        ("\n\n", "holds no lines\ngot: an empty file"),
        ("id,images\n", "holds no lines\ngot: a header and nothing else"),
        ("q1,a b\n", "line 1 is not the header\ngot: q1,a b\nfix: it should be id,images"),
        ("id,images,Usage\nq,a,Public\n", "line 1 is not the header"),
        ("id,images\nq1,a\nq2,b\nq1,c\n", "line 4: id q1 stands there twice\ngot: first on line 2"),
        ("id,images\nq1,a,b\n", "line 2 does not have an id and 2 columns\ngot: q1,a,b"),
        ("id,images\nq1\n", "line 2 does not have an id and 2 columns"),
        ("id,images\n,a b\n", "line 2 does not have an id and 2 columns"),
        (b"id,images\nq1,caf\xe9\n", "line 2 is not UTF-8 text"),
        ("id,images\nq1,a\n".encode("utf-16"), "line 1 is not UTF-8 text"),
        ("id,images\nq1,a\nq9," + "x " * 101 + "\n", "line 3: query q9 has more than 100 photos\ngot: 101"),
    ],
)
def test_a_wrong_submission_is_explained_with_its_line(file, data, message):
    path = file(data)
    with pytest.raises(LmrError) as error:
        read_submission(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert error.value.fix


def test_a_solution_may_be_longer_than_a_submission(file):
    assert len(read_solution(file("id,images\nq," + "x " * 50_000))["q"]) == 50_000
    with pytest.raises(LmrError, match="line 1 is not the header"):
        read_recognition_solution(file("id,images\nq,a\n"))


def test_a_wrong_recognition_submission_is_explained(file):
    for cell in ("tower", "tower high", "tower 0.5 0.6"):
        with pytest.raises(LmrError, match="line 2: photo p has no landmark with confidence"):
            read_recognition_submission(file(f"id,landmarks\np,{cell}\n"))


@pytest.mark.parametrize("url", ["nowhere.csv", "folder", "nosuchscheme://x/y.csv", "memory://nowhere.csv"])
def test_a_wrong_path_is_explained(tmp_path, url):
    (tmp_path / "folder").mkdir()
    url = url if "://" in url else str(tmp_path / url)
    with pytest.raises(StorageError, match="cannot read") as error:
        read_submission(url)
    assert url in str(error.value)
    assert error.value.fix


def test_what_would_break_the_file_is_refused():
    assert submission_csv({"q": ["x"] * 100}).count(b"x") == 100
    with pytest.raises(LmrError, match="query q has more than 100 photos"):
        submission_csv({"q": ["x"] * 101})
    for bad in ("a b", "a,b", "", "a\n", 'a"', " a", "\u2003"):
        with pytest.raises(LmrError, match="line of q would break the file"):
            submission_csv({"q": ["fine", bad]})
        with pytest.raises(LmrError, match="would break the file"):
            submission_csv({bad: ["fine"]})
        with pytest.raises(LmrError, match="would break the file"):
            recognition_csv({"p": (bad, 1.0)})
