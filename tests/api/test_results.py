"""Every table of `Results` against what the run's shards and files hold."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmr
from lmr.errors import LmrError, StorageError
from lmr.steps.results.folder.datasets import open_datasets
from tests.support.world import submission

ROOT = Path(__file__).parents[2]
STAGES = ("search", "verify", "rank", "expand", "diffuse")


@pytest.fixture(scope="module")
def shards(finished):
    """Read all rows of a dataset of the run, by Arrow alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read(dataset):
        parts = [dataset.locate(i) for i in range(dataset.shards)]
        tables = [pq.read_table(part.shard_url(i)) for part, i in parts]
        return pa.concat_tables([one.replace_schema_metadata(None) for one in tables])

    return read


def numbers(table, name, dtype):
    """A packed column as numbers, by NumPy alone."""
    return np.stack([np.frombuffer(row, dtype) for row in table.column(name).to_pylist()])


def listed(finished, shards, stage):
    """(query id, rank, photo id, score) of every entry of a stage, from its shards."""
    datasets = finished.datasets
    ids = {role: shards(dataset).column("id").to_pylist() for role, dataset in datasets.photos.items()}
    rows = shards(datasets.rankings[stage])
    photos, scores = numbers(rows, "photos", np.int32), numbers(rows, "scores", np.float32)
    return [
        (ids["queries"][query], rank + 1, ids["gallery"][photo], score)
        for query, photos_of, scores_of in zip(rows.column("query").to_pylist(), photos, scores, strict=True)
        for rank, (photo, score) in enumerate(zip(photos_of, scores_of, strict=True))
        if photo >= 0
    ]


def test_the_stages_are_the_workflows(finished):
    assert finished.stages == STAGES
    assert finished.label("verify") == "2 spatial verification"
    assert finished.settings["ingest"]["photos_per_shard"] == 10


@pytest.mark.parametrize("stage", STAGES)
def test_a_ranking_is_what_its_shards_hold(finished, shards, stage):
    frame = finished.ranking(stage)
    assert frame.columns.tolist() == ["query", "query_path", "rank", "photo", "photo_path", "score"]
    found = list(frame[["query", "rank", "photo", "score"]].itertuples(index=False, name=None))
    assert found == listed(finished, shards, stage)
    assert len(found) > 50


def test_paths_are_the_files_of_the_photos(finished, world):
    frame = finished.ranking("diffuse")
    for row in frame.sample(20, random_state=0).itertuples():
        assert (world / "gallery" / row.photo_path).is_file()
        assert Path(row.photo_path).stem == row.photo
        assert Path(row.query_path).stem == row.query


def test_matches_are_the_submission_with_what_is_known_of_each(finished, shards):
    frame = finished.matches()
    assert frame.columns.tolist() == [
        *("query", "query_path", "rank", "photo", "photo_path", "score", "inliers", "confident", "stage"),
    ]
    lists = frame.groupby("query")["photo"].apply(list).to_dict()
    assert lists == {query: images for query, images in submission(finished.root).items() if images}
    pairs = finished.pairs().set_index(["query", "photo"])
    known = pairs["inliers"].to_dict()
    assert frame["inliers"].tolist() == [
        known.get(pair, 0) for pair in zip(frame["query"], frame["photo"], strict=True)
    ]
    stages = [{(q, p) for q, _, p, _ in listed(finished, shards, stage)} for stage in STAGES]
    for row in frame.itertuples():
        first = next(s for s, held in zip(STAGES, stages, strict=True) if (row.query, row.photo) in held)
        assert row.stage == first
    # Confident matches stand at the head of their query's list.
    threshold = finished.settings["verify"]["min_inliers"]
    assert frame["confident"].any()
    assert (frame.loc[frame["confident"], "inliers"] > threshold).all()
    for _, one in frame.groupby("query"):
        assert one["confident"].is_monotonic_decreasing


def test_pairs_are_those_of_the_shards_by_inliers(finished, shards):
    frame = finished.pairs()
    rows = shards(finished.datasets.pairs)
    assert len(frame) == len(rows)
    assert frame["inliers"].tolist() == sorted(rows.column("inliers").to_pylist(), reverse=True)
    assert sorted(frame["tentative"]) == sorted(rows.column("tentative").to_pylist())
    assert (
        frame["confident"].tolist()
        == (frame["inliers"] > finished.settings["verify"]["min_inliers"]).tolist()
    )
    candidates = {(q, p) for q, _, p, _ in listed(finished, shards, "search")}
    assert set(zip(frame["query"], frame["photo"], strict=True)) == candidates


def test_unusable_photos_have_paths_and_reasons(finished):
    frame = finished.unusable().set_index("id")
    assert frame["path"].to_dict() == {
        "aaaa_empty": "aaaa_empty.jpg",
        "zzzz_text": "zzzz_text.jpg",
        "cut": "cut.jpg",
    }
    assert frame["set"].to_dict() == {"aaaa_empty": "gallery", "zzzz_text": "gallery", "cut": "queries"}
    assert frame.loc["aaaa_empty", "reason"] == "empty file"


def test_scores_are_those_of_the_file(finished):
    stored = json.loads((Path(finished.root) / "scores.json").read_text())
    assert finished.scores == {stage: stored[stage] for stage in STAGES}
    frame = finished.query_scores()
    assert frame.columns.tolist() == ["query", *STAGES]
    for stage in STAGES:
        assert np.nanmean(frame[stage]) == pytest.approx(stored[stage])
    assert frame["diffuse"].isna().sum() == 1  # the query that shows no landmark
    assert f"5 regional diffusion: mAP@100 {stored['diffuse']:.4f}" in repr(finished)


def test_costs_are_what_the_shards_say(finished):
    frame = finished.costs().set_index("step")
    for dataset in finished.datasets.steps:
        facts = [dataset.facts(shard) for shard in range(dataset.shards)]
        row = frame.loc[dataset.step]
        assert row["shards"] == dataset.shards
        assert row["rows"] == sum(fact["rows"] for fact in facts)
        assert row["seconds"] == pytest.approx(sum(fact["seconds"] for fact in facts))
        assert row["peak_bytes"] == max(fact["peak_bytes"] for fact in facts)
        assert row["bytes"] == sum(dataset.present().values())
    assert {"ingest", "extract_local", "verify", "diffuse"} <= set(frame.index)


@pytest.mark.parametrize("role", ["gallery", "queries"])
def test_photos_and_descriptors_stand_in_one_order(finished, shards, world, role):
    photos, descriptors = finished.photos(role), finished.descriptors(role)
    assert sorted(photos["path"]) == sorted(path.name for path in (world / role).iterdir())
    assert len(descriptors) == len(photos)
    # No more dimensions than the photos span that the whitening is learned from, once they are centred.
    usable = len(finished.photos()) - (finished.unusable()["set"] == "gallery").sum()
    assert descriptors.shape[1] == min(finished.settings["describe"]["dimension"], usable - 1)
    assert np.array_equal(
        descriptors, numbers(shards(finished.datasets.described.of(role)), "descriptor", np.float16)
    )
    lengths = np.linalg.norm(descriptors.astype(np.float32), axis=1)
    bad = set(finished.unusable()["id"])
    assert np.allclose(lengths, [0 if photo in bad else 1 for photo in photos["id"]], atol=1e-3)
    with pytest.raises(ValueError, match="read-only"):
        descriptors[0] = 1


def test_the_report_is_written_anew(finished):
    page = Path(finished.root) / "report" / "index.html"
    before = page.read_text()
    page.unlink()
    assert finished.report() == str(page)
    # The files beside it lie in a new folder, so that nobody meets half a report.
    assert re.sub("data-[0-9a-f]{8}", "", page.read_text()) == re.sub("data-[0-9a-f]{8}", "", before)


def test_a_stage_that_is_not_there_is_told_with_those_that_are(finished):
    with pytest.raises(LmrError) as told:
        finished.ranking("rerank")
    assert told.value.fix == "one of: search, verify, rank, expand, diffuse"
    assert isinstance(finished.ranking("expand"), pd.DataFrame)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_run_is_opened_by_text_or_path(finished, kind, monkeypatch):
    assert lmr.open_run(kind(finished.root)).matches().equals(finished.matches())
    monkeypatch.chdir(Path(finished.root).parent)
    assert lmr.open_run(kind("run")).root == finished.root


def test_no_run_is_told(tmp_path):
    with pytest.raises(StorageError, match="no finished run here"):
        lmr.open_run(tmp_path)


def test_without_pandas_the_extra_is_named(finished):
    code = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] == 'pandas':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "import lmr\n"
        f"run = lmr.open_run({finished.root!r})\n"
        "print(run.scores, run.descriptors().shape)\n"  # these need none
        "try:\n"
        "    run.matches()\n"
        "except lmr.LmrError as error:\n"
        "    print(error.fix)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == 'pip install "lmr[dataframes]"'


def test_the_record_names_the_datasets_of_the_results(finished):
    assert open_datasets(finished.root) == finished.datasets
