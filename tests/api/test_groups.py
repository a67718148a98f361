"""`lmr group`: places of the rendered world are found again without a query."""

import csv
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from lmr.api.groups import declare_groups
from lmr.api.reopen import reopen
from lmr.runtime.graph import make_plan
from lmr.runtime.settings import layer
from lmr.runtime.steps import SHARD_BYTES, closure
from lmr.steps.groups.group import GroupsSettings
from lmr.steps.results.columns import FURTHER
from lmr.storage.arrow import column
from tests.support.world import lmr as command


@pytest.fixture(scope="module")
def grouped(finished, tmp_path_factory):
    """A copy of the run with its groups, and what was printed."""
    root = tmp_path_factory.mktemp("groups") / "run"
    shutil.copytree(finished.root, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        return root, command("group", str(root), "--workers", "0")


@pytest.fixture(scope="module")
def landmark_of(world):
    with open(world / "landmarks.csv") as file:
        rows = list(csv.DictReader(file))
    return {row["id"]: row["landmark"] for row in rows if row["landmark"]}


def test_only_what_is_new_is_made(finished):
    steps = closure([declare_groups(reopen(finished.root)).step])
    todo = [need.step.name for need in make_plan(steps[-1:], finished.root) if need.missing]
    assert todo == ["gallery_pairs", "verify", "group"]


def test_a_group_shows_one_place(grouped, landmark_of):
    root, _ = grouped
    with open(root / "groups.csv") as file:
        rows = list(csv.DictReader(file))
    places: dict[str, set[str]] = {}
    for row in rows:
        places.setdefault(row["group"], set()).add(landmark_of.get(row["photo"], row["photo"]))
    assert len(places) >= 4
    assert all(len(found) == 1 for found in places.values())
    sizes = [int(row["size"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] >= 3
    assert all(int(row["links"]) >= 1 and int(row["inliers"]) > 20 for row in rows)
    table = pq.read_table(root / "groups.parquet")
    assert table.column("photo").to_pylist() == [row["photo"] for row in rows]


def test_every_pair_stands_once(grouped):
    root, _ = grouped
    steps = {step.name: step for step in closure([declare_groups(reopen(root)).step])}
    pairs, graph = (steps[name].dataset(str(root)) for name in ("gallery_pairs", "neighbours"))
    listed = {
        frozenset((query, photo))
        for shard in range(pairs.shards)
        for query, photos in zip(
            *(column(pairs.read(shard), name).tolist() for name in ("query", "photos")), strict=True
        )
        for photo in photos
        if photo >= 0
    }
    count = sum(
        int(np.count_nonzero(column(pairs.read(shard), "photos") >= 0)) for shard in range(pairs.shards)
    )
    near = {
        frozenset((photo, one))
        for shard in range(graph.shards)
        for photo, ids in zip(*(column(graph.read(shard), n).tolist() for n in ("photo", "ids")), strict=True)
        for one in ids[:20]
        if one >= 0
    }
    assert listed == near
    assert count == len(near)


def test_the_page_and_the_words(grouped):
    root, printed = grouped
    page = (root / "groups" / "index.html").read_text()
    strips = re.findall(r'src="(group-\d+\.jpg)"', page)
    assert strips
    assert all((root / "groups" / name).read_bytes().startswith(b"\xff\xd8") for name in strips)
    assert "http" not in page.replace("http-equiv", "")
    assert re.search(r"group 1: \d photos", printed)


def test_a_grouping_with_fewer_groups_leaves_no_strips_of_before(grouped, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(grouped[0], root)
    folder = root / "groups"
    (folder / "group-00099.jpg").write_bytes(b"of an earlier grouping")
    (folder / "mine.jpg").write_bytes(b"my own")
    declare_groups(reopen(str(root))).finalizer()
    page = (folder / "index.html").read_text()
    left = {path.name for path in folder.glob("*.jpg")}
    assert left == {*re.findall(r'src="(group-\d+\.jpg)"', page), "mine.jpg"}


def test_no_step_takes_more_than_it_states(grouped):
    root, _ = grouped
    for step in closure([declare_groups(reopen(root)).step]):
        if step.name in ("gallery_pairs", "verify", "group"):
            dataset = step.dataset(str(root))
            rows = sum(dataset.facts(shard)["rows"] for shard in range(dataset.shards))
            assert rows <= step.cost.rows
            bound = step.cost.rows * step.cost.bytes_per_row + step.shards * SHARD_BYTES
            assert sum(dataset.present().values()) <= bound


def test_the_reference_names_the_columns(grouped):
    root, _ = grouped
    for step in closure([declare_groups(reopen(root)).step]):
        if step.name in FURTHER:
            assert step.dataset(str(root)).read(0).column_names == list(FURTHER[step.name][2])


def test_run_again_nothing_is_made(grouped):
    root, _ = grouped
    steps = closure([declare_groups(reopen(root)).step])
    assert not make_plan(steps[-1:], str(root)).totals


def test_another_threshold_verifies_nothing_again(grouped):
    root, _ = grouped
    strict = layer(GroupsSettings(), {"group": {"min_inliers": 60}})
    plan = make_plan([declare_groups(reopen(root), strict).step], str(root))
    assert list(plan.totals) == ["group"]
