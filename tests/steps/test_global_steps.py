"""Steps 3 to 5 on small vectors: by shards as in one piece, against golden outputs, and at the edges."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmr.cluster.client import Where
from lmr.errors import SettingsError
from lmr.retrieval.diffusion.offline import columns_matrix, compare_columns
from lmr.retrieval.global_search.exact import top_k
from lmr.runtime.steps import closure
from lmr.scheduler.run import run
from lmr.steps.diffusion.offline_columns import ColumnSettings
from lmr.steps.diffusion.online import DiffuseSettings, diffuse_shard
from lmr.steps.diffusion.region_graph import GraphSettings
from lmr.storage.arrow import column, ragged
from tests.support.shared import shared
from tests.support.toys import Quiet
from tests.support.vectors import VectorSettings, described, rows_of, steps, vectors_of

GALLERY = VectorSettings(photos=130, per_shard=200, total=150)
QUERIES = VectorSettings(photos=20, per_shard=200, total=150, first=130)
METHODS = {
    "regional": {},
    "reduced": {"graph": GraphSettings(neighbours=10, regions=2)},
    "regions searched by an index": {"graph": GraphSettings(neighbours=10, exact_below=100)},
    "regional, from regions found by an index": {
        "diffusion": DiffuseSettings(start="regions", starts=5),
        "graph": GraphSettings(neighbours=10, exact_below=100),
    },
    "offline": {"diffusion": DiffuseSettings(method="offline")},
    "queries as nodes": {
        "diffusion": DiffuseSettings(method="offline"),
        "columns": ColumnSettings(neighbours=10, queries_are_nodes=True),
    },
    "all by an index": {"diffusion": DiffuseSettings(method="offline"), "exact_below": 100},
    "all by an index, regional": {"exact_below": 100},
}


def declare(gallery_shard=200, query_shard=200, **more):
    gallery = described(replace(GALLERY, per_shard=gallery_shard), "gallery")
    queries = described(replace(QUERIES, per_shard=query_shard), "queries")
    return steps(gallery, queries, **more)


@pytest.fixture(scope="module")
def in_one_piece(tmp_path_factory):
    """For each method: the steps run on one shard each, and their root."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name, more in METHODS.items():
            root = str(tmp_path_factory.mktemp("whole"))
            flow = declare(**more)
            run(list(flow.values()), root, Where(), Quiet())
            made[name] = flow, root
    return made


def same(ours, theirs):
    """Compare all steps of two runs that were cut differently."""
    (flow, root), (whole, whole_root) = ours, theirs
    for name in ("neighbours", "augmented", "ranked", "expanded", "final"):
        columns = {"neighbours": ("ids", "sims"), "augmented": ("descriptor",)}.get(
            name, ("photos", "scores")
        )
        for wanted in columns:
            got, expected = rows_of(flow[name], root, wanted), rows_of(whole[name], whole_root, wanted)
            if got.dtype == np.int32:
                np.testing.assert_array_equal(got, expected, err_msg=f"{name}.{wanted}")
            else:
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6, err_msg=f"{name}.{wanted}")


@pytest.mark.slow
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(METHODS)), st.integers(30, 130), st.integers(3, 20))
def test_sharded_is_unsharded(in_one_piece, tmp_path_factory, method, gallery_shard, query_shard):
    root = str(tmp_path_factory.mktemp("cut"))
    flow = declare(gallery_shard, query_shard, **METHODS[method])
    run(list(flow.values()), root, Where(), Quiet())
    same((flow, root), in_one_piece[method])


@pytest.mark.cluster
def test_a_cluster_gives_what_one_process_gives(in_one_piece, tmp_path):
    flow = declare(50, 7, **METHODS["offline"])
    run(list(flow.values()), str(tmp_path), Where(workers=2), Quiet())
    same((flow, str(tmp_path)), in_one_piece["offline"])


@pytest.mark.parametrize("method", METHODS)
def test_photos_without_descriptor_are_never_found_and_change_nothing_for_others(in_one_piece, method):
    flow, root = in_one_piece[method]
    x = vectors_of(GALLERY)
    empty = np.flatnonzero(~x.any(axis=1))
    for name, listed in (("neighbours", "ids"), ("ranked", "photos")):
        assert not np.isin(rows_of(flow[name], root, listed), empty).any()
    assert (rows_of(flow["neighbours"], root, "ids")[empty] == -1).all()
    final, before = rows_of(flow["final"], root, "photos"), rows_of(flow["expanded"], root, "photos")
    for ours, theirs in zip(final, before, strict=True):
        kept = ours[ours >= 0]
        assert len(set(kept.tolist())) == len(kept)
        assert len(kept) >= (theirs >= 0).sum()
    blind = np.flatnonzero(~vectors_of(QUERIES).any(axis=1))
    assert len(blind)
    np.testing.assert_array_equal(final[blind], before[blind])


def test_neighbours_leave_out_the_photo_itself_and_break_ties_by_row(in_one_piece):
    flow, root = in_one_piece["all by an index"]
    ids, sims = (rows_of(flow["neighbours"], root, name) for name in ("ids", "sims"))
    assert not (ids == np.arange(len(ids))[:, None]).any()
    later, earlier = (ids[:, 1:], sims[:, 1:]), (ids[:, :-1], sims[:, :-1])
    assert (
        (later[1] < earlier[1]) | ((later[1] == earlier[1]) & ((later[0] > earlier[0]) | (later[0] < 0)))
    ).all()
    for listed in ids:
        assert len(set(listed[listed >= 0].tolist())) == (listed >= 0).sum()


def test_the_recall_of_an_index_is_that_of_its_lists_and_is_said(in_one_piece):
    flow, root = in_one_piece["all by an index"]
    index = flow["neighbours"].inputs["index"].step
    note = index.dataset(root).facts(0)["note"]
    said = float(note.split("recall@50 ")[1].split()[0])
    assert said >= 0.95
    x = vectors_of(GALLERY)
    _, exact = top_k(x, [(0, x)], 12, exclude_self_start=0)
    found = rows_of(flow["neighbours"], root, "ids")
    hits = [len(set(a) & set(b) - {-1}) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
    assert sum(hits) / (exact >= 0).sum() >= 0.9


def test_ranks_start_from_regions_that_the_graphs_index_finds(in_one_piece):
    flow, root = in_one_piece["regional, from regions found by an index"]
    final = flow["final"]
    index = final.inputs["nodes_index"].step
    assert index.name == "index_regions"
    inputs = {name: given.dataset(root) for name, given in final.inputs.items()}
    exact = diffuse_shard(0, final.settings, **{**inputs, "nodes_index": None})
    found, right = rows_of(final, root, "photos")[:, :10], column(exact, "photos")[:, :10]
    same_places = [len(set(a) & set(b) - {-1}) for a, b in zip(found.tolist(), right.tolist(), strict=True)]
    assert sum(same_places) >= 0.95 * (right >= 0).sum()
    # Where starts are photos, or the search is exact, there is nothing to look in.
    for other in ("regions searched by an index", "all by an index, regional"):
        assert "nodes_index" not in in_one_piece[other][0]["final"].inputs


def test_one_index_serves_the_searches_of_one_gallery():
    flow = declare(exact_below=100)
    indexes = [s for s in closure(flow.values()) if s.name.startswith("index")]
    assert sorted(s.name for s in indexes) == ["index_augmented", "index_global"]
    assert flow["ranked"].inputs["index"] == flow["expanded"].inputs["index"]


def test_augmentation_and_the_photos_graph_share_one_search():
    flow = declare(diffusion=DiffuseSettings(method="offline"))
    made = closure([flow["augmented"], flow["final"]])
    assert [s.name for s in made].count("neighbours") == 1
    assert not {"link_regions", "graph"} & {s.name for s in made}


def test_without_diffusion_the_expanded_ranking_is_final():
    flow = declare(diffusion=DiffuseSettings(method="none"))
    assert flow["final"] is flow["expanded"]
    assert not {"link_regions", "columns"} & {s.name for s in closure([flow["final"]])}


def test_more_neighbours_than_were_searched_are_refused():
    with pytest.raises(SettingsError, match=r"columns\.neighbours = 13, neighbours\.neighbours = 12"):
        declare(columns=ColumnSettings(neighbours=13))


def test_reduced_regions_are_nodes_of_the_graph(in_one_piece):
    flow, root = in_one_piece["reduced"]
    reduced = ragged(flow["reduced"].dataset(root).read(0), "regions")
    present = vectors_of(GALLERY).any(axis=1)
    np.testing.assert_array_equal(np.diff(reduced.offsets), 2 * present)


@pytest.fixture(scope="module")
def golden():
    return shared("golden/diffusion_fyang93/diffusion.npz")


def golden_steps(path, gallery, queries, diffusion=None, **columns):
    arrays = np.load(path)
    told = {
        "file": f"{path}:gallery",
        "photos": len(arrays["gallery"]),
        "dimension": arrays["gallery"].shape[1],
    }
    asked = told | {"file": f"{path}:queries", "photos": len(arrays["queries"])}
    # The published lists of 50 begin with the node itself.
    settings_ = ColumnSettings(neighbours=49, gamma=3.0, alpha=0.99, truncation=500, **columns)
    return steps(
        described(VectorSettings(per_shard=gallery, **told), "gallery"),
        described(VectorSettings(per_shard=queries, **asked), "queries"),
        neighbours=500,
        columns=settings_,
        graph=GraphSettings(neighbours=10),
        diffusion=diffusion,
    )


def matrix_of(step, root):
    """All columns of a run as the rows of one CSR, in the order of nodes."""
    dataset = step.dataset(root)
    rows = {}
    for shard in range(dataset.shards):
        part = dataset.read(shard)
        ids, values = ragged(part, "ids"), ragged(part, "values")
        for i, node in enumerate(column(part, "node").tolist()):
            rows[node] = ids[i][:, 0], values[i][:, 0]
    width = max(len(ids) for ids, _ in rows.values())
    ids, values = np.full((len(rows), width), -1, np.int32), np.zeros((len(rows), width), np.float32)
    for node, (listed, scores) in rows.items():
        ids[node, : len(listed)], values[node, : len(listed)] = listed, scores
    return columns_matrix(ids, values, len(rows))


def test_golden_columns_are_what_the_step_writes(golden, tmp_path):
    flow = golden_steps(golden, 400, 50)
    run([flow["columns"]], str(tmp_path), Where(), Quiet())
    columns, wanted = matrix_of(flow["columns"], str(tmp_path)), np.load(golden)
    got = np.take_along_axis(columns[wanted["old/column/nodes"]].toarray(), wanted["old/column/ids"], 1)
    np.testing.assert_allclose(got, wanted["old/column/scores"], rtol=0, atol=1e-5)


def test_golden_scores_of_queries_that_are_nodes(golden, tmp_path):
    alone = DiffuseSettings(method="offline", starts=10, gamma=3.0, weight=None)
    flow = golden_steps(golden, 300, 20, alone, queries_are_nodes=True)
    root, wanted = str(tmp_path), np.load(golden)["new/scores"]
    n = len(np.load(golden)["gallery"])
    final = flow["final"]
    run([final], root, Where(), Quiet())
    columns = matrix_of(flow["columns"], root)
    # The published code puts the queries first, here they follow the gallery.
    scores = compare_columns(columns[n:], columns[:n]).toarray()
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)
    photos = rows_of(final, root, "photos")
    for query, listed in enumerate(photos):
        best = wanted[query, listed[:10]]
        assert (np.diff(best) <= 1e-6).all()
        assert best[0] == pytest.approx(wanted[query].max(), abs=1e-5)
