"""The whole workflow on a tiny rendered world, through the command line."""

import re
import shutil
from pathlib import Path

import pytest

from lmr.errors import LmrError, SettingsError, StorageError
from lmr.steps.results.folder.datasets import open_datasets
from tests.support.world import arguments, lmr, make, scores, submission

STEPS = ["search", "verify", "rank", "expand", "diffuse"]


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory):
    """A finished run in this process: its folder and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        printed = lmr(*arguments(world, out, "--workers", "0", "--solution", str(world / "solution.csv")))
    return out, printed


def test_every_query_has_a_line_and_every_step_a_score(world, finished):
    out, printed = finished
    queries = sorted(path.stem for path in (world / "queries").iterdir())
    lines = submission(out)
    assert sorted(lines) == queries
    gallery = {path.stem for path in (world / "gallery").iterdir()} - {"aaaa_empty", "zzzz_text"}
    for query, images in lines.items():
        assert len(set(images)) == len(images)
        assert set(images) <= gallery
        assert (len(images) > 0) == (query != "cut")
    found = scores(out)
    assert list(found) == [*STEPS, "protocol"]
    assert all(0 < found[step] <= 1 for step in STEPS)
    for step in STEPS:
        assert f"{found[step]:.4f}" in printed


def test_damaged_photos_are_named(finished):
    _, printed = finished
    assert "3 photo(s) could not be used" in printed
    for name, reason in (
        ("aaaa_empty", "empty file"),
        ("zzzz_text", "not an image"),
        ("cut", "truncated JPEG"),
    ):
        assert re.search(rf"{name}.*{reason}", printed)


def test_the_score_is_that_of_lmr_evaluate(world, finished):
    out, _ = finished
    printed = lmr(
        "evaluate", str(out / "submission.csv"), "--solution", str(world / "solution.csv"), "--json"
    )
    assert f'"score": {scores(out)["diffuse"]}' in printed


def test_a_second_run_has_nothing_to_do(world, finished):
    out, _ = finished
    before = (out / "submission.csv").read_bytes()
    printed = lmr(*arguments(world, out, "--workers", "0", "--solution", str(world / "solution.csv")))
    assert "nothing was left to do" in printed
    assert (out / "submission.csv").read_bytes() == before


def test_a_changed_setting_redoes_only_later_steps(world, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    printed = lmr(*arguments(world, out, "--workers", "0", "--set", "expand.top=3"))
    steps = re.split(r"(?m)^steps\s*$", printed)[1].split("photo(s)")[0]
    assert re.findall(r"^│ (\w+)", steps, re.MULTILINE) == ["expand", "diffuse", "submit"]


def test_another_threshold_verifies_nothing_again(world, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    printed = lmr(*arguments(world, out, "--workers", "0", "--set", "verify.min_inliers=30"))
    steps = re.split(r"(?m)^steps\s*$", printed)[1].split("photo(s)")[0]
    assert re.findall(r"^│ (\w+)", steps, re.MULTILINE) == ["rerank", "expand", "diffuse", "submit"]


@pytest.mark.slow
@pytest.mark.cluster
def test_a_cluster_gives_what_one_process_gives(world, finished, tmp_path):
    out = tmp_path / "run"
    printed = lmr(*arguments(world, out, "--workers", "2"))
    assert "dashboard  http://127.0.0.1" in printed
    assert submission(out) == submission(finished[0])


@pytest.mark.slow
def test_shards_of_another_size_give_the_same_lists(world, finished, tmp_path):
    out = tmp_path / "run"
    lmr(*arguments(world, out, "--workers", "0", "--set", "ingest.photos_per_shard=1000"))
    # What is learned (words, whitening, quantiser) comes from samples that shards are part of, so a few
    # photos may trade places; what is searched is the same.
    ours, theirs = submission(out), submission(finished[0])
    same = [len(set(ours[q][:5]) & set(theirs[q][:5])) for q in ours if ours[q]]
    assert sum(same) / (5 * len(same)) > 0.8


def test_the_plan_is_printed_and_nothing_runs(world, tmp_path):
    printed = lmr(*arguments(world, tmp_path / "run", "--plan"))
    assert re.search(r"extract_local\s+│\s+\d+ │\s+\d+ │", printed)
    assert not (tmp_path / "run").exists()


def test_a_pruned_run_takes_the_first_shards_only(world, tmp_path):
    out = tmp_path / "run"
    printed = lmr(
        *arguments(world, out, "--workers", "0", "--prune", "1", "--solution", str(world / "solution.csv")),
        "--set",
        "ingest.photos_per_shard=20",
    )
    assert len(submission(out)) == len(list((world / "queries").iterdir()))
    first = sorted(path.stem for path in (world / "gallery").iterdir())[:20]
    assert {image for images in submission(out).values() for image in images} <= set(first)
    assert "mAP@100" in printed


def test_wrong_inputs_are_told_before_any_work(world, tmp_path):
    out = tmp_path / "run"
    gone = tmp_path / "gone"
    with pytest.raises(StorageError, match="the folder of the gallery does not exist"):
        lmr(*arguments(gone, out))
    (gone / "gallery").mkdir(parents=True)
    with pytest.raises(LmrError, match="the folder of the gallery holds no photo"):
        lmr(*arguments(gone, out))
    solution = tmp_path / "solution.csv"
    query = sorted((world / "queries").glob("*.jpg"))[1].stem
    solution.write_text(f"id,images\n{query},nobody\n")
    with pytest.raises(LmrError, match="names 1 photos that are not in the gallery\ngot: gallery: nobody"):
        lmr(*arguments(world, out, "--solution", str(solution)))
    solution.write_text("id,images\nstranger,\n")
    with pytest.raises(LmrError, match="1 queries that are not there\ngot: queries: stranger"):
        lmr(*arguments(world, out, "--solution", str(solution)))
    with pytest.raises(SettingsError, match=r"unknown setting verify\.min_inlier"):
        lmr(*arguments(world, out, "--set", "verify.min_inlier=3"))
    with pytest.raises(SettingsError, match="gem needs the weights of its network"):
        lmr(*arguments(world, out, "--set", "describe.descriptor=gem"))
    with pytest.raises(StorageError, match=r"cannot read .*none\.pth"):
        lmr(*arguments(world, out, "--global", "gem", "--weights", str(tmp_path / "none.pth")))
    with pytest.raises(LmrError, match="there is no such workflow"):
        lmr("run", "workflows/nothing.py", *arguments(world, out)[2:])
    with pytest.raises(SettingsError, match="unknown preset"):
        lmr(*arguments(world, out, "--preset", "none"))
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_on_s3_gives_what_a_folder_gives(world, finished, moto_s3):
    import s3fs

    s3 = s3fs.S3FileSystem()
    for name in ("gallery", "queries"):
        s3.put(str(world / name), f"photos/world/{name}", recursive=True)
    printed = lmr(
        "run",
        "workflows/retrieval.py",
        *("--gallery", "s3://photos/world/gallery", "--queries", "s3://photos/world/queries"),
        *("--out", moto_s3, "--workers", "2", "--set", "ingest.photos_per_shard=10", "--global", "vlad"),
    )
    assert "3 photo(s) could not be used" in printed
    lines = s3.cat_file("photos/run/submission.csv").decode().splitlines()
    ours = {line.split(",")[0]: line.split(",")[1].split() for line in lines[1:]}
    assert ours == submission(finished[0])
    assert not [path for path in s3.find("photos/run") if "attempts" in path or path.endswith(".tmp")]


def test_networks_without_weights_are_refused_before_any_work(world, tmp_path):
    with pytest.raises(
        SettingsError, match=r"xfeat needs the weights of its network\ngot: no --local-weights"
    ):
        lmr(*arguments(world, tmp_path / "run", "--local", "xfeat"))
    assert not (tmp_path / "run").exists()


def test_a_worker_without_torch_says_which_extra_it_lacks(monkeypatch):
    import sys

    from lmr.errors import ClusterError
    from lmr.features.extractors import GlobalRequest, LocalRequest, global_extractor, local_extractor

    for name in ("lmr.features.networks.gem", "lmr.features.local.delf", "lmr.features.local.learned"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ClusterError, match=r"pip install 'lmr\[features\]'"):
        global_extractor("gem", GlobalRequest(weights=Path("none.pth")))
    with pytest.raises(ClusterError, match=r"pip install 'lmr\[features\]'"):
        local_extractor("xfeat", LocalRequest(weights=Path("none.npz")))


def test_records_of_another_shape_hold_up_nothing(world, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    (out / "run.json").write_text('{"notes": 3}')
    (out / "datasets.json").write_text("[]")
    with pytest.raises(
        StorageError, match=r"datasets\.json is not what lmr wrote(.|\n)*fix: run the same command once more"
    ):
        open_datasets(str(out))
    printed = lmr(*arguments(world, out, "--workers", "0", "--solution", str(world / "solution.csv")))
    assert "nothing was left to do" in printed
    assert open_datasets(str(out)).images.gallery.shards > 0
    assert "the machines are not known" in (out / "report" / "index.html").read_text()
