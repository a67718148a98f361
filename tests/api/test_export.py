"""`lmr export`: every format is read back by its own library and compared with what the shards hold."""

import csv
import shutil

import duckdb
import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pycolmap
import pytest

import lmr
from lmr.errors import LmrError, ShardError
from lmr.steps.results.columns import EXPORTS, FURTHER, meaning
from lmr.steps.results.export.export import FORMATS, export_run
from lmr.storage.arrow import column, ragged
from tests.support.small_run import small_run
from tests.support.world import lmr as command

CARRIED = [(to, what) for to, (kinds, _) in FORMATS.items() for what in kinds]


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """Every export of the run, each in a folder of its own."""
    root = tmp_path_factory.mktemp("exported")
    return {
        (to, what): export_run(finished.datasets, what, to, root / f"{to}-{what}") for to, what in CARRIED
    }


def parquet(exported, what):
    return pq.read_table(exported["parquet", what].files[0])


@pytest.mark.parametrize(("to", "what"), CARRIED)
def test_files_are_there_and_nothing_else_is(exported, to, what):
    files = exported[to, what].files
    assert files
    assert all(path.stat().st_size for path in files)
    assert sorted(files[0].parent.iterdir()) == list(files)


@pytest.mark.parametrize("what", EXPORTS)
def test_the_columns_are_those_that_the_reference_explains(exported, what):
    # This run has no calibration.
    assert parquet(exported, what).column_names == [one for one in EXPORTS[what] if one != "probability"]
    assert all(EXPORTS[what].values())


def test_every_column_of_every_step_is_explained(finished):
    for step in finished.datasets.steps:
        for name in step.read(0).column_names:
            assert meaning(step.step, name), f"{step.step}.{name}: add it to lmr/steps/results/columns.py"
        if step.step in FURTHER:
            assert step.read(0).column_names == list(FURTHER[step.step][2])


@pytest.mark.parametrize("what", EXPORTS)
def test_duckdb_pandas_and_csv_agree_with_one_another(exported, what):
    path = exported["parquet", what].files[0]
    frame = pd.read_parquet(path)
    assert duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall() == [(len(frame),)]
    assert len(frame) == len(parquet(exported, what)) > 5
    if ("csv", what) in exported:
        with open(exported["csv", what].files[0], newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["photo_path"] for row in rows] == frame["photo_path"].tolist()
        assert [row["photo"] for row in rows] == frame["photo"].tolist()


@pytest.mark.parametrize("what", EXPORTS)
def test_arrays_and_hdf5_hold_what_parquet_holds(exported, what):
    rows = parquet(exported, what)
    arrays = {p.name.removeprefix(f"{what}.").removesuffix(".npy"): p for p in exported["npy", what].files}
    with h5py.File(exported["h5", what].files[0]) as file:
        for name in rows.column_names:
            values = rows.column(name).to_pylist()
            if isinstance(values[0], str):
                assert file[name].asstr()[:].tolist() == values
                continue
            mapped = np.load(arrays[name])
            np.testing.assert_array_equal(file[name][:], mapped)
            if f"{name}.offsets" in file:
                offsets = np.load(arrays[f"{name}.offsets"])
                np.testing.assert_array_equal(file[f"{name}.offsets"][:], offsets)
                assert len(offsets) == len(values) + 1
                for i in (0, len(values) // 2, len(values) - 1):
                    np.testing.assert_array_equal(mapped[offsets[i] : offsets[i + 1]].tolist(), values[i])
            else:
                np.testing.assert_array_equal(mapped, np.array(values, mapped.dtype))


def test_descriptors_and_pairs_are_those_of_the_run(finished, exported):
    found = parquet(exported, "descriptors").to_pandas()
    for role in ("gallery", "queries"):
        mine = np.stack(found[found["set"] == role]["descriptor"].to_list())
        np.testing.assert_array_equal(mine, finished.descriptors(role).astype(np.float32))
    pairs = parquet(exported, "pairs").to_pandas()
    by_pair = finished.pairs().set_index(["query", "photo"])
    assert pairs["confident"].sum() == by_pair["confident"].sum() > 3
    for row in pairs.itertuples():
        assert by_pair.loc[(row.query, row.photo), "inliers"] == row.inliers == len(row.matches)


def test_hloc_reads_features_matches_and_pairs(finished, exported, world):
    (features,) = exported["hloc", "features"].files
    matches, listed = exported["hloc", "pairs"].files
    (described,) = exported["hloc", "descriptors"].files
    pairs = [line.split() for line in listed.read_text().splitlines()]
    inliers = finished.pairs().set_index(["query_path", "photo_path"])["inliers"]
    assert len(pairs) == (inliers > 0).sum()
    with h5py.File(features) as of, h5py.File(matches) as between, h5py.File(described) as whole:
        for query, photo in pairs:
            assert (world / query).is_file()
            # As hloc.utils.io reads them.
            found = between[query.replace("/", "-")][photo.replace("/", "-")]["matches0"][()]
            q, p = np.flatnonzero(found > -1), found[found > -1]
            assert len(q) == inliers[query.removeprefix("queries/"), photo.removeprefix("gallery/")]
            assert len(found) == len(of[query]["keypoints"])
            assert p.max() < len(of[photo]["keypoints"])
        one = of[pairs[0][0]]
        n = len(one["keypoints"])
        assert one["descriptors"].shape == (128, n)
        assert one["scores"].shape == (n,)
        np.testing.assert_allclose(np.linalg.norm(one["descriptors"], axis=0), 1, atol=1e-3)
        assert (one["keypoints"][:] <= one["image_size"][:]).all()
        assert whole[pairs[0][0]]["global_descriptor"].ndim == 1


def test_colmap_opens_the_database_and_finds_the_inliers(finished, exported):
    (path,) = exported["colmap", "pairs"].files
    inliers = finished.pairs()
    features = parquet(exported, "features").to_pandas().set_index(["set", "photo_path"])
    with pycolmap.Database.open(path) as database:
        assert database.num_images() == database.num_rigs() == database.num_frames() == len(features)
        assert database.num_verified_image_pairs() == (inliers["inliers"] > 0).sum()
        best = inliers.iloc[0]
        query, photo = (
            database.read_image_with_name(f"{role}/{best[name]}")
            for role, name in (("queries", "query_path"), ("gallery", "photo_path"))
        )
        assert len(database.read_matches(query.image_id, photo.image_id)) == best["inliers"]
        geometry = database.read_two_view_geometry(query.image_id, photo.image_id)
        assert len(geometry.inlier_matches) == best["inliers"]
        row = features.loc["queries", best["query_path"]]
        places = database.read_keypoints(query.image_id)[:, :2]
        np.testing.assert_allclose(places, np.stack(row["xy"]) + 0.5, atol=1e-4)
        stored = database.read_descriptors(query.image_id).data
        np.testing.assert_array_equal(stored, np.stack(row["descriptor"]))
        camera = database.read_camera(query.camera_id)
        assert (camera.model_name, camera.has_prior_focal_length) == ("SIMPLE_RADIAL", False)


def test_a_shard_is_read_as_plain_lists(finished):
    pairs = finished.datasets.pairs
    shard = next(i for i in range(pairs.shards) if len(pairs.read(i)))
    stored, rows = pairs.read(shard), lmr.read_shard(pairs.shard_url(shard))
    frame = rows.to_pandas()
    np.testing.assert_array_equal(np.stack(frame["transform"]), column(stored, "transform"))
    found = ragged(stored, "matches")
    assert [len(row) for row in frame["matches"]] == [len(found[i]) for i in range(len(found))]
    longest = int(frame["inliers"].idxmax())
    np.testing.assert_array_equal(np.stack(frame["matches"][longest]), found[longest])
    assert duckdb.sql("SELECT max(len(matches)) FROM rows").fetchall() == [(frame["inliers"].max(),)]
    edges = next(one for one in finished.datasets.steps if one.step == "graph")
    table = lmr.read_shard(edges.shard_url(0)).to_pandas()
    assert all(len(a) == len(b) for a, b in zip(table["columns"], table["values"], strict=True))
    assert table["values"][0].dtype == np.float32
    with pytest.raises(LmrError, match=r"cannot read .*nowhere"):
        lmr.read_shard("nowhere.parquet")


def test_what_cannot_be_exported_is_told_and_nothing_is_left(tmp_path):
    run = small_run(tmp_path / "run")
    folder = tmp_path / "out"

    def refused(what, to, match):
        with pytest.raises(LmrError, match=match) as told:
            export_run(run, what, to, folder)
        return told.value.fix

    assert (
        refused("pears", "csv", "nothing of this name") == f"did you mean pairs? One of: {', '.join(EXPORTS)}"
    )
    assert refused("matches", "cvs", "no such format").startswith("did you mean csv?")
    assert refused("features", "csv", "csv does not carry features").startswith("--to parquet")
    assert "--to csv" in refused("matches", "fiftyone", "writes no files of fiftyone")
    assert "--to hloc" in refused("features", "kapture", "writes no files of kapture")
    assert refused("graph", "csv", "nothing to export as graph") == "--what matches"
    assert refused("descriptors", "hloc", "nothing to export as descriptors") == "--what matches"
    assert not list(folder.iterdir())
    (folder / "matches.csv").write_text("mine")
    assert "another folder" in refused("matches", "csv", "a file of this name is there")
    assert (folder / "matches.csv").read_text() == "mine"
    assert len(list(folder.iterdir())) == 1
    shutil.rmtree(run.pairs.url)
    with pytest.raises(ShardError) as told:
        export_run(run, "pairs", "parquet", folder)
    assert "another --out" in told.value.fix


def test_the_command_names_the_files_and_what_is_left_out(tmp_path):
    run = small_run(tmp_path / "run")
    out = tmp_path / "out"
    told = command("export", run.root, "--what", "pairs", "--to", "csv", "--out", str(out))
    assert told == f"{out}/pairs.csv\nCSV holds no lists: matches left out\n"
    assert (out / "pairs.csv").read_text().splitlines() == [
        "query,query_path,photo,photo_path,confident",
        "'=q0,'=q0.jpg,g3,c/g3.jpg,true",
        "q1,sub/q1.jpg,<b>g2,b/<b>g2.jpg,false",
    ]
