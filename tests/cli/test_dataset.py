"""`lmr dataset` as a user types it, and `lmr run --dataset`."""

import shlex

import pytest
from typer.testing import CliRunner

from lmr.cli.main import app
from lmr.collections import COLLECTIONS
from lmr.errors import LmrError
from tests.support.published import hosted, revisited


def lmr(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.output


def test_every_data_set_is_listed_and_described(tmp_path):
    listed = lmr("dataset", "list", "--data", tmp_path)
    for collection in COLLECTIONS:
        assert collection.name in listed
        said = lmr("dataset", "describe", collection.name, "--data", tmp_path)
        assert collection.licence in said
        assert collection.facts in said
        for part in collection.parts:
            assert f"{part.base}/{part.files[0]}" in said


def test_the_last_line_of_fetch_is_a_command_that_runs(tmp_path):
    data = tmp_path / "my data"
    with hosted(revisited()) as host:
        said = lmr("dataset", "fetch", "revisited-oxford", "--data", data, "--from", host.url)
    lines = said.strip().splitlines()
    assert lines[0].startswith("revisited-oxford: photos of Flickr")
    assert "2 files fetched, 0 were there" in said
    command = shlex.split(lines[-1])
    assert command[:3] == ["lmr", "run", "retrieval"]
    command[-1] = str(tmp_path / "run")
    # The small photos are noise: the plan shows that it is a run.
    planned = lmr(*command[1:], "--workers", 0, "--plan")
    assert "ingest_queries" in planned
    assert "evaluate" in planned
    assert "yes" in lmr("dataset", "list", "--data", data)
    assert lines[-1] in lmr("dataset", "describe", "revisited-oxford", "--data", data)
    by_name = lmr(
        *("run", "retrieval", "--dataset", "revisited-oxford", "--data", data, "--workers", 0),
        *("--out", tmp_path / "run", "--plan"),
    )
    assert by_name == planned
    own = lmr("dataset", "describe", data / "revisited-oxford")
    assert "scored by its solution.csv" in own


def test_a_data_set_brings_its_own_photos(tmp_path):
    with pytest.raises(LmrError, match="brings its own photos"):
        lmr(
            *("run", "retrieval", "--dataset", "revisited-oxford", "--gallery", tmp_path),
            *("--out", tmp_path / "run"),
        )
    with pytest.raises(LmrError, match="is not there") as caught:
        lmr("run", "retrieval", "--dataset", "revisited-oxford", "--data", tmp_path, "--out", tmp_path / "r")
    assert caught.value.fix.startswith("lmr dataset fetch revisited-oxford")
