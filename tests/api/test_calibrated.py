"""A run with a calibration: its probabilities in tables, exports, the report, searches and the server."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import lmr
from lmr.api.answers import shown_answer
from lmr.api.ask import PhotoSearch
from lmr.api.choices import Choices
from lmr.api.prepare import prepare
from lmr.api.reopen import reopen
from lmr.api.server.gallery import Gallery
from lmr.errors import LmrError, SettingsError, StorageError
from lmr.retrieval.probability import signals_of
from lmr.steps.calibration import read_calibration, write_calibration
from lmr.steps.results.calibration.fit_probability import (
    fit_probability,
    labelled_answers,
    right_photos,
    store_probability,
)
from lmr.steps.results.export.tables import tables_of
from lmr.steps.results.folder.datasets import open_datasets
from tests.support.world import lmr as command


@pytest.fixture(scope="module")
def calibration(finished, world, tmp_path_factory):
    """A calibration that was fitted on the run itself: enough to see where its numbers go."""
    answers = labelled_answers(finished.root, right_photos(finished.root, str(world / "solution.csv")))
    folder = str(tmp_path_factory.mktemp("calibration"))
    return store_probability(folder, fit_probability(answers, folds=2), "probability")


@pytest.fixture(scope="module")
def run(finished, world, calibration, tmp_path_factory):
    """The same run, taken up with a calibration: only the probabilities are made."""
    out = tmp_path_factory.mktemp("runs") / "calibrated"
    shutil.copytree(finished.root, out)
    printed = command(
        *("run", "retrieval", "--gallery", str(world / "gallery"), "--queries", str(world / "queries")),
        *("--solution", str(world / "solution.csv"), "--out", str(out), "--workers", "0"),
        *("--set", "ingest.photos_per_shard=10", "--calibration", calibration, "--global", "vlad"),
    )
    assert "probability" in printed
    assert "extract_local" not in printed
    return lmr.open_run(out)


def test_every_match_has_the_probability_of_its_signals(run, finished, calibration):
    matches = run.matches()
    plain = finished.matches()
    assert "probability" not in plain.columns
    assert matches.drop(columns="probability").equals(plain)
    said = matches.probability.to_numpy()
    assert ((said >= 0) & (said <= 1)).all()
    assert said.std() > 0.01
    # Verified pairs have all three signals in tables of their own.
    pairs = run.pairs()
    assert pairs.probability.notna().all()
    joined = matches.merge(pairs, on=["query", "photo"], suffixes=("", "_pair"))
    np.testing.assert_array_equal(joined.probability, joined.probability_pair)
    votes = run.ranking("search")
    row = joined[joined.inliers > 0].iloc[0]
    votes = votes[(votes["query"] == row["query"]) & (votes.photo == row.photo)].score.iloc[0]
    rows = {role: run.photos(role)["id"].tolist() for role in ("gallery", "queries")}
    query, photo = rows["queries"].index(row["query"]), rows["gallery"].index(row.photo)
    verified = run.datasets.rankings["verify"].read(0)
    chance = verified.column("background").to_numpy()[query]
    two = [
        run.descriptors(role)[at].astype(np.float32) for role, at in (("gallery", photo), ("queries", query))
    ]
    cosine = two[0] @ two[1] / np.linalg.norm(two[0]) / np.linalg.norm(two[1])
    signals = signals_of(np.array([row.inliers]), np.array([votes / chance]), np.array([cosine]))
    wanted = read_calibration(calibration).model.probability(signals)[0]
    assert row.probability == pytest.approx(wanted, abs=1e-4)


def test_files_exports_and_the_report_carry_it(run):
    root = Path(run.root)
    assert "probability" in (root / "matches.csv").read_text().splitlines()[0].split(",")
    for what in ("matches", "pairs"):
        rows = next(iter(tables_of(run.datasets, what)))
        assert "probability" in rows.column_names
    text = next((root / "report").glob("data-*/queries-00000.js")).read_text()
    entry = json.loads(json.loads(text[text.index("JSON.parse(") + 11 : text.rindex("))")]))
    listed = next(iter(entry["queries"].values()))["list"]
    assert all(0 <= one[6] <= 1 for one in listed)


def test_it_is_remembered_and_told(run, calibration):
    stored = open_datasets(run.root)
    assert stored.calibration == read_calibration(calibration).plain()
    assert "calibrated logistic" in command("info", run.root)


def test_one_more_photo_gets_the_probability_that_the_run_says(run, world):
    opened = reopen(run.root)
    asked = PhotoSearch(opened)
    path = next(p for p in sorted((world / "queries").iterdir()) if p.name != "cut.jpg")
    answer = asked.ask(path)
    matches = run.matches()
    right = matches[matches.query_path == path.name]
    np.testing.assert_allclose([one.probability for one in answer.matches], right.probability, atol=1e-3)
    shown = Gallery(opened, asked).answer(answer)
    assert shown["matches"][0]["probability"] == pytest.approx(right.probability.iloc[0], abs=1e-3)
    page = shown_answer(opened, path.name, path.read_bytes(), answer, "")
    assert f"probability {right.probability.iloc[0]:.2f}" in page.matches[0].says
    # A list from before verification has no inliers to judge by.
    assert PhotoSearch(opened, "search").ask(path).matches[0].probability is None


def test_search_prints_it(run, world):
    path = next(p for p in sorted((world / "queries").iterdir()) if p.name != "cut.jpg")
    assert "probability" in command("search", run.root, str(path))


def refused(kind, fix, world, calibration, out, *overrides, **more):
    photos = {"gallery": str(world / "gallery"), "queries": str(world / "queries"), "descriptor": "vlad"}
    with pytest.raises(kind) as caught:
        prepare(
            "retrieval",
            Choices(out=str(out), calibration=calibration, overrides=overrides, **(photos | more)),
        )
    assert fix in (caught.value.fix or "")
    return f"{caught.value.what}; {caught.value.got}"


def test_other_extractors_are_refused_and_other_settings_told(world, calibration, tmp_path, finished):
    content = {n: v for n, v in json.loads(Path(calibration).read_text()).items() if n != "sha256"}
    for change, said in (
        (
            {"settings": {**content["settings"], "local": {"features": "xfeat"}}},
            "xfeat there, rootsift in this",
        ),
        ({"weights": {"local": "ab" * 32}}, "of other weights"),
    ):
        told = refused(SettingsError, "lmr calibrate", world, content | change, tmp_path)
        assert "another extractor of local features" in told
        assert said in told
    other = "triangulation" if finished.settings["describe"]["descriptor"] != "triangulation" else "vlad"
    told = refused(SettingsError, "lmr calibrate", world, calibration, tmp_path, descriptor=other)
    assert f"{other} in this run" in told
    photos = {"gallery": str(world / "gallery"), "queries": str(world / "queries"), "descriptor": "vlad"}
    prepared = prepare(
        "retrieval",
        Choices(
            out=str(tmp_path),
            calibration=calibration,
            overrides=("ingest.photos_per_shard=10", "verify.max_trials=77", "verify.min_inliers=3"),
            **photos,
        ),
    )
    (news,) = [one for one in prepared.news if "calibration" in one]
    assert "verify.max_trials = " in news
    assert "(this run: 77)" in news
    assert "min_inliers" not in news  # a threshold changes no signal


def test_a_calibration_that_is_none_is_refused(world, calibration, tmp_path):
    good = json.loads(Path(calibration).read_text())
    cases = {
        "not what lmr wrote": {**good, "version": 1, "about": {"pairs": 3}},  # its digest is another
        "another version": {name: value for name, value in good.items() if name != "sha256"}
        | {"version": 99},
    }
    model = {name: value for name, value in good.items() if name != "sha256"}
    for what, change in {
        "weight of 0 or more": {"weights": [-1.0, 1.0, 1.0]},
        "each once": {"signals": ["inliers", "inliers", "votes"]},
        "does not rise": {"curve": [[0.0, 0.9], [1.0, 0.1]]},
    }.items():
        cases[what] = {**model, "model": {**good["model"], **change}}
    for what, content in cases.items():
        file = tmp_path / "probability.json"
        file.write_text(json.dumps(content))
        assert what in refused(LmrError, "lmr calibrate", world, str(file), tmp_path / "run")
    refused(StorageError, "", world, str(tmp_path / "none.json"), tmp_path / "run")
    refused(SettingsError, "probability.json", world, "", tmp_path / "run")


def test_a_larger_gallery_is_warned(world, calibration, tmp_path):
    found = read_calibration(calibration)
    url = str(tmp_path / "small.json")
    write_calibration(url, type(found)(model=found.model, settings=found.settings, about={"gallery": 2}))
    photos = {"gallery": str(world / "gallery"), "queries": str(world / "queries"), "descriptor": "vlad"}
    prepared = prepare("retrieval", Choices(out=str(tmp_path / "run"), calibration=url, **photos))
    assert any("may be too high" in one for one in prepared.news)
