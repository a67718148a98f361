"""`lmr calibrate` on a finished run: what it writes, that `lmr run` takes it, and what it refuses."""

import csv
import re
import shutil

import pytest

from lmr.errors import LmrError, StorageError
from tests.support.world import arguments, lmr, make


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        lmr(*arguments(world, out, "--workers", "0"))
    return out


def test_it_fits_a_threshold_that_a_run_takes(world, finished, tmp_path):
    solution = str(world / "solution.csv")
    printed = lmr("calibrate", str(finished), "--solution", solution, "--precision", "0.9")
    folder = finished / "calibration"
    rows = list(csv.DictReader((folder / "curve.csv").read_text().splitlines()))
    threshold = int(printed.split("verify.min_inliers = ")[1].split()[0])
    (chosen,) = [row for row in rows if int(row["more_than"]) == threshold]
    assert float(chosen["precision"]) >= 0.9
    assert int(chosen["right"]) > 0
    assert f"min_inliers = {threshold}\n" in (folder / "settings.toml").read_text()
    assert "8 queries" in printed  # all but the damaged one, which has no pair
    assert (folder / "curve.svg").read_text().startswith("<svg")

    out = tmp_path / "run"
    shutil.copytree(finished, out)
    printed = lmr(
        *arguments(world, out, "--workers", "0", "--solution", solution),
        *("--config", str(folder / "settings.toml"), "--plan"),
    )
    assert re.search(r"│ verify +│ +4 │ +0 │", printed)  # the pairs are verified already


def test_pairs_are_labelled_by_the_solution(world, finished, tmp_path):
    """A solution that calls every pair wrong, or of which no query is in the run, is refused."""
    with open(world / "solution.csv") as file:
        queries = [row["id"] for row in csv.DictReader(file)]
    solution = tmp_path / "none.csv"
    solution.write_text("id,images\n" + "".join(f"{query},\n" for query in queries))
    with pytest.raises(
        LmrError, match=r"no threshold of inliers reaches precision 0\.99\ngot: .* none is right"
    ):
        lmr("calibrate", str(finished), "--solution", str(solution))
    solution.write_text("id,images\nstranger,a\n")
    with pytest.raises(LmrError, match="names no query of this run"):
        lmr("calibrate", str(finished), "--solution", str(solution))


def test_without_a_finished_run_it_says_what_to_give(world, tmp_path):
    with pytest.raises(StorageError, match="there is no finished run here"):
        lmr("calibrate", str(tmp_path), "--solution", str(world / "solution.csv"))
