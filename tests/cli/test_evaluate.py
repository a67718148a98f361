"""`lmr evaluate` as a user types it: lines, JSON, files of scores, comparisons, notices and errors."""

import csv
import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lmr.cli.main import app
from lmr.errors import LmrError, SettingsError, StorageError


def evaluate(*arguments):
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


@pytest.fixture
def files(tmp_path):
    texts = {
        "mine.csv": "id,images\na,x y\nb,w z\n",
        "theirs.csv": "id,images\na,w x\nb,w z\n",
        "solution.csv": "id,images\na,x y\nb,z\nnone,\n",
        "revisited.csv": "id,easy,hard,junk\na,x,y,\nb,,z,w\n",
        "named.csv": "id,landmarks\na,eiffel 0.9\nb,\nnone,eiffel 0.1\n",
        "landmarks.csv": "id,landmark\na,eiffel\nb,louvre\nnone,\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_line_and_the_json_of_the_challenge(files):
    printed = evaluate(files / "mine.csv", "--solution", files / "solution.csv")
    assert printed.stdout.splitlines()[0] == "map_at_100 0.7500 over 2 queries"
    assert printed.stderr == ""
    facts = json.loads(evaluate(files / "mine.csv", "--solution", files / "solution.csv", "--json").stdout)
    assert {key: facts[key] for key in ("protocol", "score", "queries", "notices")} == {
        "protocol": "map_at_100",
        "score": 0.75,
        "queries": 2,
        "notices": [],
    }
    assert facts["metrics"]["map_at_100"]["interval"] == [0.5, 1.0]


def test_protocols_and_metrics(files):
    printed = evaluate(
        *(files / "mine.csv", "--solution", files / "revisited.csv"),
        *("--protocol", "revisited-medium", "--metric", "recall@1,2"),
    ).stdout
    scores = [line for line in printed.splitlines() if not line.startswith(" ")]
    # Query b's w is junk, so that z stands first.
    assert scores == [
        "revisited-medium 1.0000 over 2 queries",
        *("mp@1 1.0000", "mp@5 1.0000", "mp@10 1.0000", "recall@1 0.7500", "recall@2 1.0000"),
    ]
    printed = evaluate(files / "named.csv", "--solution", files / "landmarks.csv", "--protocol", "gap")
    assert printed.stdout.startswith("gap 0.5000 over 2 photos\n")
    assert "accuracy 0.5000" in printed.stdout
    assert "1 photo of the solution's 2 has no prediction and counts as 0: b" in printed.stderr
    named = evaluate(files / "mine.csv", "--solution", files / "solution.csv", "--protocol", "hit_rate@1,2")
    assert named.stdout.startswith("hit_rate@1 0.5000 over 2 queries\n")


def test_scores_of_every_query_are_written(files):
    arguments = (files / "mine.csv", "--solution", files / "solution.csv", "--metric", "recall@1")
    evaluate(*arguments, "--per-query", files / "new" / "scores.csv")
    with open(files / "new" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"id": "a", "map_at_100": "1", "recall@1": "0.5"},
        {"id": "b", "map_at_100": "0.5", "recall@1": "0"},
        {"id": "none", "map_at_100": "", "recall@1": ""},
    ]
    evaluate(*arguments, "--compare", files / "theirs.csv", "--per-query", files / "scores.parquet")
    table = pq.read_table(files / "scores.parquet").to_pydict()
    assert table["map_at_100"] == [1.0, 0.5, None]
    assert table["map_at_100 of the other"] == [0.25, 0.5, None]
    with pytest.raises(SettingsError, match="CSV or Parquet"):
        evaluate(*arguments, "--per-query", "scores.txt")


def test_two_submissions_are_compared(files):
    arguments = (files / "mine.csv", "--solution", files / "solution.csv", "--compare", files / "theirs.csv")
    lines = evaluate(*arguments).stdout.splitlines()
    assert lines[0] == "map_at_100 0.7500 over 2 queries"
    assert "map_at_100 0.3750 over 2 queries" in lines
    assert "map_at_100 +0.3750" in lines[-2]
    assert "1 better, 0 worse, 1 equal" in lines[-2]
    assert lines[-1] == "  most better: a +0.750"
    found = json.loads(evaluate(*arguments, "--json").stdout)["compare"]
    assert found["score"] == 0.375
    assert found["differences"]["map_at_100"]["difference"] == 0.375


def test_what_is_odd_is_told_and_what_cannot_be_right_is_an_error(files):
    (files / "odd.csv").write_text("id,images\na,x y\nzz,w\n")
    printed = evaluate(files / "odd.csv", "--solution", files / "solution.csv")
    assert printed.stdout.splitlines()[0] == "map_at_100 0.5000 over 2 queries"
    assert "1 query is not in the solution and is not scored: zz" in printed.stderr
    assert "has no prediction and counts as 0: b" in printed.stderr
    (files / "other.csv").write_text("id,images\na,1\nb,2\n")
    with pytest.raises(LmrError, match="nothing can be right"):
        evaluate(files / "other.csv", "--solution", files / "solution.csv")
    with pytest.raises(StorageError, match="cannot read"):
        evaluate(files / "nowhere.csv", "--solution", files / "solution.csv")
    with pytest.raises(SettingsError, match="unknown protocol"):
        evaluate(files / "mine.csv", "--solution", files / "solution.csv", "--protocol", "map")
