"""A workflow is a file, whatever its steps: none of it needs verification, diffusion or labels."""

import re
from pathlib import Path

import pytest

import lmr
from lmr.errors import LmrError, SettingsError
from tests.support.world import lmr as command_line
from tests.support.world import scores, submission

SUPPORT = Path(__file__).parents[1] / "support"
CASES = {"plain_workflow": ("found", "the one search"), "votes_workflow": ("votes", "votes")}


def run(world, out, workflow, *more):
    return command_line(
        "run",
        str(SUPPORT / f"{workflow}.py"),
        *("--gallery", str(world / "gallery"), "--queries", str(world / "queries"), "--out", str(out)),
        *("--workers", "0", *more),
    )


@pytest.fixture(params=CASES, scope="module")
def done(request, world, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        printed = run(world, out, request.param, "--solution", str(world / "solution.csv"))
    return (out, printed, *CASES[request.param])


def test_its_own_labels_are_shown(done):
    out, printed, stage, label = done
    score = scores(out)[stage]
    assert re.search(rf"{label}\s+│\s+{score:.4f}", printed)
    assert "3 photo(s) could not be used" in printed
    page = (out / "report" / "index.html").read_text()
    assert f">{label}<" in page
    (queries,) = (out / "report").glob("data-*/queries-00000.js")
    assert "data:image/jpeg" in queries.read_text()
    for foreign in ("spatial verification", "diffusion", "local search"):
        assert foreign not in page + printed


def test_its_results_are_tables(done):
    out, _, stage, label = done
    results = lmr.open_run(out)
    assert results.stages == (stage,)
    assert results.label(stage) == label
    assert f"{label}: mAP@100 {results.scores[stage]:.4f}" in repr(results)
    matches = results.matches()
    assert matches.columns.tolist() == [
        *("query", "query_path", "rank", "photo", "photo_path", "score", "stage"),
    ]
    lists = matches.groupby("query")["photo"].apply(list).to_dict()
    assert lists == {query: images for query, images in submission(out).items() if images}
    assert set(matches["stage"]) == {stage}
    assert sorted(results.unusable()["id"]) == ["aaaa_empty", "cut", "zzzz_text"]
    with pytest.raises(LmrError, match="verifies no pairs"):
        results.pairs()
    assert results.report().endswith("report/index.html")
    if stage == "votes":
        with pytest.raises(LmrError, match="no global descriptors"):
            results.descriptors()
    else:
        assert results.descriptors("queries").shape[1] == 16


def test_calibrating_it_says_that_nothing_was_verified(done, world):
    with pytest.raises(LmrError, match="verified no pairs") as told:
        command_line("calibrate", str(done[0]), "--solution", str(world / "solution.csv"))
    assert "with verification" in told.value.fix


def test_options_of_steps_that_it_has_not_are_refused(world, tmp_path):
    with pytest.raises(SettingsError, match="unknown group of settings") as told:
        run(world, tmp_path / "run", "votes_workflow", "--global", "vlad")
    assert told.value.got == "describe"
    with pytest.raises(SettingsError, match="unknown group of settings"):
        run(world, tmp_path / "run", "votes_workflow", "--set", "verify.min_inliers=3")


def test_a_descriptor_without_settings_of_its_own_is_chosen_all_the_same(world, tmp_path):
    run(world, tmp_path / "run", "plain_workflow", "--global", "triangulation", "--plan")
    with pytest.raises(SettingsError, match="unknown preset"):
        run(world, tmp_path / "run", "plain_workflow", "--preset", "triangulation")
