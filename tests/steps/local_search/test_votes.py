"""Step 1 both ways, through the command line: what a setting changes, and that the place of work does not."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmr.errors import SettingsError
from lmr.steps.global_search import device
from lmr.storage.arrow import column
from tests.support.world import arguments, lmr, make, scores


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make(tmp_path_factory.mktemp("world"))


def run(world, out, *more):
    return lmr(*arguments(world, out, "--workers", "0", "--solution", str(world / "solution.csv"), *more))


def candidates(out):
    """The candidates and their scores that the run's only search found, by query."""
    (folder,) = (out / "candidates").iterdir()
    rows = pa.concat_tables(
        [pq.read_table(path).replace_schema_metadata(None) for path in sorted(folder.glob("*.parquet"))]
    )
    return column(rows, "photos"), column(rows, "scores")


ASMK = ("--set", "search.method=asmk", "--set", "index.gallery_shards_per_index=2")


@pytest.fixture(scope="module")
def by_asmk(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "asmk"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        printed = run(world, out, *ASMK)
    return out, printed


def test_asmk_finds_landmarks_and_the_later_steps_go_on_from_it(by_asmk):
    out, printed = by_asmk
    found = scores(out)
    assert found["search"] > 0.5
    assert found["diffuse"] > 0.5
    for step in ("train_codebook", "index_asmk", "search"):
        assert f"│ {step} " in printed
    assert "train_quantiser" not in printed
    photos, similarities = candidates(out)
    assert (similarities <= 1).all()
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert (photos[:, 0] >= 0).sum() == len(photos) - 1  # all but the damaged query


@pytest.mark.slow
@pytest.mark.cluster
def test_asmk_on_a_cluster_gives_what_one_process_gives(world, by_asmk, tmp_path):
    lmr(*arguments(world, tmp_path / "run", "--workers", "2", *ASMK))
    for ours, theirs in zip(candidates(tmp_path / "run"), candidates(by_asmk[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_sub_indexes_of_another_size_change_no_candidate(world, by_asmk, tmp_path):
    out = tmp_path / "run"
    run(world, out, "--set", "search.method=asmk", "--set", "index.gallery_shards_per_index=100")
    for ours, theirs in zip(candidates(out), candidates(by_asmk[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_setting_of_the_search_trains_and_indexes_nothing_again(world, by_asmk, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(by_asmk[0], out, ignore=shutil.ignore_patterns("candidates"))
    printed = run(world, out, *ASMK, "--set", "asmk.idf=true", "--set", "asmk.words_per_feature=1")
    assert "│ search " in printed
    for step in ("train_codebook", "index_asmk", "extract_local"):
        assert f"│ {step} " not in printed
    assert not np.array_equal(candidates(out)[1], candidates(by_asmk[0])[1])


def test_idf_changes_votes_and_still_finds_landmarks(world, by_asmk, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(by_asmk[0] / "images", out / "images")
    shutil.copytree(by_asmk[0] / "local", out / "local")
    shutil.copytree(by_asmk[0] / "photos", out / "photos")
    run(world, out)
    plain = candidates(out)[1]
    shutil.rmtree(out / "candidates")
    run(world, out, "--set", "search.idf=true")
    assert not np.array_equal(candidates(out)[1], plain)
    assert scores(out)["search"] > 0.5


def test_an_unknown_method_is_refused(world, tmp_path):
    with pytest.raises(SettingsError, match=r"setting search\.method is not valid\ngot: 'bow'"):
        run(world, tmp_path / "run", "--set", "search.method=bow")


def test_all_features_compared_find_what_a_wide_index_finds_nearly(world, tmp_path):
    exact, asked = tmp_path / "exact", tmp_path / "asked"
    run(world, exact, "--set", "search.exact_below=1000000")
    run(world, asked, "--set", "search.probes=1000000")  # every list, so that only the codes differ
    (photos, votes), (others, _) = candidates(exact), candidates(asked)
    found = photos[:, 0] >= 0
    assert found.sum() == len(photos) - 1  # all but the damaged query
    assert np.mean(photos[found, 0] == others[found, 0]) > 0.9
    assert (np.diff(votes, axis=1) <= 0).all()
    assert scores(exact)["search"] >= scores(asked)["search"] - 0.02


def test_a_gpu_finds_what_the_cpu_finds_among_all_features(world, tmp_path, monkeypatch):
    _gpu_torch = pytest.importorskip("lmr.retrieval.global_search._gpu_torch", reason="no torch")
    asked = []

    class Engine(_gpu_torch.TorchEngine):
        def load(self, rows):
            asked.append(len(rows))
            return super().load(rows)

    exactly = ("--set", "search.exact_below=1000000", "--set", "diffuse.method=none")
    run(world, tmp_path / "cpu", *exactly)
    monkeypatch.setattr(device, "gpu_engine", lambda: (Engine("cpu"), "here"))
    printed = run(world, tmp_path / "gpu", *exactly, "--search-device", "cuda")
    assert max(asked) > 1000  # features; photos are fewer
    assert "searched on CPUs" not in printed
    for ours, theirs in zip(candidates(tmp_path / "gpu"), candidates(tmp_path / "cpu"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
