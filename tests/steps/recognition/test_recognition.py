"""Recognition to its end on a small world: files, scores, resume, a cluster of processes, stated costs."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lmr.api.choices import Choices
from lmr.api.prepare import prepare
from lmr.errors import LmrError, SettingsError
from lmr.evaluation.protocols.kaggle import parse_recognition_solution, parse_recognition_submission
from lmr.evaluation.protocols.recognition import accuracy, gap
from lmr.retrieval.naming import INGREDIENTS
from lmr.retrieval.probability import SIGNALS, PairModel
from lmr.runtime.steps import SHARD_BYTES, closure
from lmr.runtime.tasks import ShardTask
from lmr.steps.calibration import Calibration
from lmr.steps.results.columns import FURTHER
from lmr.steps.results.folder.datasets import open_datasets
from lmr.steps.results.results import open_run
from tests.support import world as worlds
from tests.support.synthetic_inputs import MAKERS, inputs_of, write_inputs
from tests.support.task_memory import Job, measure

NEW = (
    *("background", "background_queries", "frequency", "recognise"),
    *("evaluate_recognition", "label_candidates", "verify_labels"),
)
NOISE_BYTES = 20_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The photos, `labels.csv` with one label that is wrong, and `truth.csv`."""
    folder = worlds.make(tmp_path_factory.mktemp("world"))
    rows = list(csv.DictReader((folder / "landmarks.csv").read_text().splitlines()))
    landmark = {row["id"]: row["landmark"] for row in rows if row["set"] == "gallery"}
    wrong = next(one for one, name in landmark.items() if name == "landmark-00000")
    landmark[wrong] = "landmark-00001"
    lines = [f"{one},{name}" for one, name in landmark.items()]
    (folder / "labels.csv").write_text("\n".join(["id,landmark", *lines, ""]))
    lines = [f"{row['id']},{row['landmark']}" for row in rows if row["set"] == "query"]
    (folder / "truth.csv").write_text("\n".join(["id,landmark", *lines, ""]))
    return folder


def choices(world, out, **more):
    files = {"labels": str(world / "labels.csv"), "solution": str(world / "truth.csv"), **more}
    photos = {"gallery": str(world / "gallery"), "queries": str(world / "queries")}
    files.setdefault("descriptor", "vlad")  # as `worlds.arguments` has it
    return Choices(out=str(out), **photos, **files, overrides=("ingest.photos_per_shard=10",))


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A finished run, made by worker processes of a Dask cluster."""
    out = tmp_path_factory.mktemp("run")
    arguments = worlds.arguments(world, out, "--labels", str(world / "labels.csv"), "--workers", "1")
    arguments[1] = "recognition"
    printed = worlds.lmr(*arguments, "--solution", str(world / "truth.csv"))
    return out, printed


def test_it_shares_every_step_that_it_can_with_retrieval(world, tmp_path):
    named = prepare("recognition", choices(world, tmp_path)).flow
    photos = {"gallery": str(world / "gallery"), "queries": str(world / "queries")}
    plain = Choices(out=str(tmp_path), descriptor="vlad", **photos)
    searched = prepare("retrieval", replace(plain, overrides=("ingest.photos_per_shard=10",))).flow
    theirs = {step.fingerprint for step in closure(searched.targets)}
    own = [step.name for step in closure(named.targets) if step.fingerprint not in theirs]
    assert sorted(own) == sorted([*NEW, "submit"])  # another ranking is the last one


def test_the_reference_names_the_columns(run):
    seen = set()
    for step in open_datasets(str(run[0])).steps:
        name = step.step.removesuffix("_queries")
        if name in FURTHER:
            seen.add(name)
            assert step.read(0).column_names == list(FURTHER[name][2]), name
    assert seen >= {name for name, (whose, *_) in FURTHER.items() if whose.startswith("recognition")}


def test_labels_are_for_recognition_and_recognition_needs_them(world, tmp_path):
    with pytest.raises(SettingsError, match="names no landmarks"):
        prepare("retrieval", choices(world, tmp_path, solution=None))
    with pytest.raises(LmrError, match="give --labels a CSV"):
        prepare("recognition", choices(world, tmp_path, labels=None))


@pytest.mark.slow
@pytest.mark.cluster
def test_submission_and_scores_are_those_of_the_field(world, run):
    out, printed = run
    predictions = parse_recognition_submission((out / "submission.csv").read_bytes())
    truth = parse_recognition_solution((world / "truth.csv").read_bytes())
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores) == [*INGREDIENTS, "accuracy", "protocol"]
    assert scores["protocol"] == "gap"
    scored = {query: one for query, one in predictions.items() if query in truth}
    assert scores["frequency"] == pytest.approx(gap(scored, truth).mean)
    assert scores["accuracy"] == pytest.approx(accuracy(scored, truth).mean)
    assert scores["accuracy"] > 0.4
    assert f"{scores['frequency']:.4f}" in printed
    assert (out / "submission.csv").read_text().count("\ncut,\n") == 1  # a damaged query is named nothing
    told = worlds.lmr(
        "evaluate", str(out / "submission.csv"), "--solution", str(world / "truth.csv"), "--protocol", "gap"
    )
    assert f"gap {scores['frequency']:.4f}" in told


@pytest.mark.slow
@pytest.mark.cluster
def test_a_wrong_label_is_found_and_the_page_shows_it(world, run):
    out, _ = run
    rows = list(csv.DictReader((out / "wrong_labels.csv").read_text().splitlines()))
    right = {
        row["id"]: row["landmark"]
        for row in csv.DictReader((world / "landmarks.csv").read_text().splitlines())
    }
    given = {
        row["id"]: row["landmark"] for row in csv.DictReader((world / "labels.csv").read_text().splitlines())
    }
    (wrong,) = [one for one, landmark in given.items() if landmark != right[one]]
    assert [row["neighbours_say"] for row in rows if row["id"] == wrong] == [right[wrong]]
    # Of two photos that accuse each other nobody knows which is wrong; no third one is accused.
    assert all(wrong in (row["id"], row["neighbour"]) for row in rows)
    page = (out / "report" / "recognition.html").read_text()
    for row in rows:
        assert row["id"] in page
    assert "data:image/jpeg;base64," in page
    assert "recognition.html" in (out / "report" / "index.html").read_text()
    table = list(csv.DictReader((out / "landmarks.csv").read_text().splitlines()))
    assert {"id", "path", "landmark", "confidence", "support", "photo", "right"} == table[0].keys()
    frame = open_run(out).landmarks()
    assert frame["confidence"].is_monotonic_decreasing
    assert open_run(out).scores.keys() == INGREDIENTS.keys()


@pytest.mark.slow
@pytest.mark.cluster
def test_what_is_lost_is_made_again_the_same_without_a_cluster(world, run):
    out, _ = run
    before = (out / "submission.csv").read_bytes()
    shutil.rmtree(out / "recognised")
    shutil.rmtree(out / "background")
    arguments = worlds.arguments(world, out, "--labels", str(world / "labels.csv"), "--workers", "0")
    arguments[1] = "recognition"
    printed = worlds.lmr(*arguments, "--solution", str(world / "truth.csv"))
    assert (out / "submission.csv").read_bytes() == before
    assert "extract_local" not in printed.partition("GAP")[0].partition("steps")[2]


@pytest.mark.slow
@pytest.mark.cluster
def test_no_new_step_takes_more_than_it_states(world, run, tmp_path_factory):
    out, _ = run
    root = tmp_path_factory.mktemp("again")
    shutil.copytree(out, root, dirs_exist_ok=True)
    flow = prepare("recognition", choices(world, root)).flow
    steps = [step for step in closure(flow.targets) if step.name in NEW]
    for step in steps:
        shutil.rmtree(Path(step.dataset(str(root)).url))
    took = measure(Job(ShardTask.of(step, str(root)), tuple(range(step.shards))) for step in steps)
    for step, one in zip(steps, took, strict=True):
        assert not one.errors, step.name
        assert one.rows <= step.cost.rows
        assert one.bytes <= step.cost.rows * step.cost.bytes_per_row + step.shards * SHARD_BYTES
        assert one.peak_bytes <= step.cost.peak_bytes


GIVEN = ("extract_global", "extract_global_queries", "neighbours", "rank", "rerank")


def declared(root, gallery, queries, per_shard):
    """Recognition on descriptors and lists of random numbers: its steps, with what they read written."""
    from lmr.runtime.settings import layer
    from lmr.steps.recognition.labels import read_labels
    from workflows.recognition import PRESETS, build

    inputs = inputs_of(gallery, queries)
    marks = tuple(f"landmark{i % 1000}" if i % 3 else "" for i in range(gallery))
    labels, _ = read_labels(replace(inputs.photos.gallery, labels=marks), None)
    changes = {"ingest": {"photos_per_shard": per_shard}, "check": {"neighbours": 0}}
    calibration = Calibration(model=PairModel(SIGNALS, (1.0, 1.0, 1.0), -3.0))
    inputs = replace(inputs, labels=labels, calibration=calibration)
    flow = build(inputs, layer(PRESETS["vlad"], changes))
    labels.rows.store(root)
    return write_inputs(flow, [flow.recognised.named], GIVEN, root)


@pytest.mark.slow
def test_tasks_hold_what_is_stated_and_a_quarter_of_it_at_least(tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_CACHE", str(tmp_path / "cache"))
    assert MAKERS  # random inputs stand for the steps of retrieval
    steps = declared(str(tmp_path / "run"), 3000, 3000, 3000)
    warm = declared(str(tmp_path / "warm"), 100, 30, 30)
    jobs = [
        Job(ShardTask.of(step, str(tmp_path / "run")), shards, ShardTask.of(one, str(tmp_path / "warm")))
        for step, one in zip(steps, warm, strict=True)
        for shards in [tuple(range(step.shards))]
    ]
    wrong = []
    for step, took in zip(steps, measure(jobs), strict=True):
        assert not took.errors, step.name
        stated, held = step.cost.task_bytes, took.task_bytes
        print(f"{step.name}: {held / 1e6:.0f} MB, stated {stated / 1e6:.0f} MB")
        if held > stated + NOISE_BYTES or stated > 4 * held + NOISE_BYTES:
            wrong.append(f"{step.name}: a task takes {held:,} bytes, stated are {stated:,.0f}")
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def calibrated(world, run, tmp_path_factory):
    """The run taken up with a calibration, which was fitted on its own names of landmarks."""
    out, _ = run
    root = tmp_path_factory.mktemp("calibrated")
    shutil.copytree(out, root, dirs_exist_ok=True)
    truth = str(world / "truth.csv")
    told = worlds.lmr("calibrate", str(root), "--solution", truth, "--precision", "0.5", "--folds", "3")
    assert "Brier score" in told
    file = str(root / "calibration" / "probability.json")
    arguments = worlds.arguments(world, root, "--labels", str(world / "labels.csv"), "--workers", "0")
    arguments[1] = "recognition"
    return root, worlds.lmr(*arguments, "--solution", truth, "--calibration", file), file


@pytest.mark.slow
@pytest.mark.cluster
def test_a_calibration_names_by_the_most_probable_photo(world, run, calibrated):
    root, printed, _ = calibrated
    assert "verify_labels" not in printed.partition("GAP")[0].partition("steps")[2]  # nothing else is made
    results = open_run(root)
    frame, pairs = results.landmarks(), results.pairs()
    assert list(results.scores) == [*INGREDIENTS, "probability"]
    named = frame[frame.landmark.notna()]
    assert named.confidence.between(0, 1).all()
    label = {
        row["id"]: row["landmark"] for row in csv.DictReader((world / "labels.csv").read_text().splitlines())
    }
    both = pd.concat(
        [results.matches()[["query", "photo", "probability"]], pairs[["query", "photo", "probability"]]]
    )
    both = both.assign(landmark=both.photo.map(label).fillna(""))
    best = both[both.landmark != ""].groupby("query").probability.max()
    for one in named.itertuples():
        assert one.confidence == pytest.approx(best[one.query])
        mine = both[(both["query"] == one.query) & (both.landmark == one.landmark)]
        assert mine.probability.max() == pytest.approx(one.confidence)
    table = {row["id"]: row for row in csv.DictReader((root / "landmarks.csv").read_text().splitlines())}
    first = named.iloc[0]
    assert label[table[first["query"]]["photo"]] == first.landmark
    # Names without a calibration stand beside it, as they were.
    before = open_run(run[0]).scores
    assert {name: results.scores[name] for name in before} == pytest.approx(before)


@pytest.mark.slow
@pytest.mark.cluster
def test_info_tells_gap_and_report_writes_the_page_anew(calibrated):
    root, _, _ = calibrated
    scores = json.loads((root / "scores.json").read_text())
    told = worlds.lmr("info", str(root))
    assert f"GAP       {scores['probability']:.4f} after 9 by the calibrated probability" in told
    assert f"names     {scores['accuracy']:.4f} right" in told
    assert "calibrated logistic" in told
    page = root / "report" / "recognition.html"
    before = page.read_text()
    page.unlink()
    worlds.lmr("report", str(root))
    assert page.read_text() == before
    # Of a run whose names are lost, no page is promised.
    shutil.rmtree(root / "recognised")
    page.unlink()
    worlds.lmr("report", str(root))
    assert not page.exists()
    assert "recognition.html" not in (root / "report" / "index.html").read_text()
