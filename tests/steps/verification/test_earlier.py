"""A gallery that has grown: pairs that were verified before are taken over, and the result is the same."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from lmr.runtime.steps import Concat, Cost, Step, concat
from lmr.runtime.tasks import ShardTask, make_shard
from lmr.steps.both import Both
from lmr.steps.features.local import Extracted
from lmr.steps.ranking import Ranked
from lmr.steps.verification import verify as module
from lmr.steps.verification.verify import VerifySettings, verify
from lmr.storage.arrow import table

PER_SHARD, FEATURES, DIMENSION = 3, 60, 16


def step(name, folder, about, shards, role):
    cost = Cost(rows=shards * PER_SHARD, bytes_per_row=1.0, task_bytes=1.0, work=1.0, unit="photo")
    return Step(
        name=name, folder=folder, make=verify, settings={"about": about}, inputs={}, shards=shards, cost=cost,
        role=role,
    )  # fmt: skip


@dataclass(frozen=True)
class Side:
    images: object
    local: object


def side(root, role, generations):
    """Photos and features of generations, each given as what names it and how many shards it has."""
    images, local, first = [], [], 0
    for about, shards in generations:
        pictures = step("ingest", f"images/{role}", about, shards, role)
        features = step("extract_local", f"local/{role}", about, shards, role)
        for shard in range(shards):
            rows = np.arange(first, first + PER_SHARD, dtype=np.int32)
            if not pictures.dataset(root).has(shard):
                size = {
                    "width": np.full(PER_SHARD, 640, np.int32),
                    "height": np.full(PER_SHARD, 480, np.int32),
                }
                pictures.dataset(root).write(shard, table({"photo": rows, **size}))
                features.dataset(root).write(shard, table(of_photos(rows, role, about)))
            first += PER_SHARD
        images.append(pictures)
        local.append(features)
    return Side(concat(images), concat(local))


def of_photos(rows, role, about):
    """Every third photo shows one thing, from another place."""
    columns = []
    for row in rows.tolist():
        rng = np.random.default_rng(row % 3)
        xy, stored = rng.uniform(40, 440, (FEATURES, 2)), rng.integers(0, 255, (FEATURES, DIMENSION))
        own = np.random.default_rng([row, len(role), len(about)])
        turn = own.uniform(-0.3, 0.3)
        turned = xy @ [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]] + own.uniform(0, 60, 2)
        columns.append((turned, np.clip(stored + own.integers(-9, 9, stored.shape), 0, 255)))
    return {
        "photo": np.repeat(rows, FEATURES),
        "xy": np.concatenate([xy for xy, _ in columns]).astype(np.float32),
        "scale": np.ones(len(rows) * FEATURES, np.float32),
        "orientation": np.zeros(len(rows) * FEATURES, np.float32),
        "descriptor": np.concatenate([stored for _, stored in columns]).astype(np.uint8),
    }


class Runs:
    """Runs of verification in one folder, that count the pairs that they verify."""

    def __init__(self, root, monkeypatch):
        self.root, self.counted = str(root), 0
        real = module.verify_pairs

        def counting(query, gallery, pairs, recipe):
            self.counted += len(pairs)
            return real(query, gallery, pairs, recipe)

        monkeypatch.setattr(module, "verify_pairs", counting)

    def declared(self, lists, gallery, queries=(("first", 1),), settings=None):
        sides = Both(side(self.root, "gallery", gallery), side(self.root, "queries", queries))
        candidates = step("search", "candidates", repr(lists), 1, "queries")
        if not candidates.dataset(self.root).has(0):
            photos = np.array(lists, np.int32)
            rows = {"query": np.arange(len(photos), dtype=np.int32), "photos": photos}
            candidates.dataset(self.root).write(0, table(rows))
        local = sides.map(lambda one: Extracted(one.local, one.images.rows, FEATURES, DIMENSION, 1))
        ranked = Ranked(candidates, len(lists[0]))
        return verify(ranked, local, sides.map(lambda one: one.images), settings or VerifySettings())

    def __call__(self, *about, **more):
        """Run; return the rows of all shards, and how many pairs were verified and taken over."""
        made, self.counted = self.declared(*about, **more), 0
        task, dataset = ShardTask.of(made, self.root), made.dataset(self.root)
        states = [make_shard(task, shard) for shard in range(made.shards)]
        assert [one.state for one in states] == ["made"] * made.shards, states
        rows = [dataset.read(shard) for shard in range(made.shards)]
        taken = sum(dataset.facts(shard).get("taken_over", 0) for shard in range(made.shards))
        assert taken + self.counted == sum(one.num_rows for one in rows)
        return rows, self.counted, taken


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_CACHE", str(tmp_path / "cache"))
    return Runs(tmp_path / "run", monkeypatch)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    return Runs(tmp_path / "another", monkeypatch)


FIRST, GROWN = (("first", 2),), (("first", 2), ("second", 1))  # 6 photos, then 3 more
BEFORE = [[0, 1, 2, 3, 5], [4, 3, 2, 1, 0], [5, 2, -1, -1, -1]]
AFTER = [[7, 0, 1, 2, 5], [4, 3, 8, 1, 0], [5, 4, 2, 6, -1]]  # 4 new: 7, 8 and 6, and 4 for the third query


def equal(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.equals(other, check_metadata=False)


def test_a_grown_gallery_verifies_only_new_pairs_and_gives_what_a_fresh_run_gives(runs, fresh):
    before, counted, taken = runs(BEFORE, FIRST)
    assert (counted, taken) == (12, 0)
    assert sum(int(one["inliers"].to_numpy().max()) > 30 for one in before) == 2  # there is something to keep
    assert isinstance(runs.declared(AFTER, GROWN).inputs["local_gallery"].step, Concat)
    grown, counted, taken = runs(AFTER, GROWN)
    assert (counted, taken) == (4, 10)
    equal(grown, fresh(AFTER, GROWN)[0])


def test_all_may_be_known_and_the_order_may_be_another(runs, fresh):
    runs(BEFORE, FIRST)
    turned = [row[::-1] for row in BEFORE]
    again, counted, taken = runs(turned, FIRST)
    assert (counted, taken) == (0, 12)
    equal(again, fresh(turned, FIRST)[0])


def test_pairs_come_from_every_earlier_run(runs):
    runs([[0, 1]], FIRST)
    runs([[2, 3]], FIRST)
    assert runs([[3, 2, 1, 0, 4]], FIRST)[1:] == (1, 4)


def test_queries_may_come_behind_those_that_are_known(runs, fresh):
    runs(BEFORE, FIRST)
    more = [*BEFORE, [0, 5, -1, -1, -1]]
    both = (("first", 1), ("second", 1))
    rows, counted, taken = runs(more, FIRST, queries=both)
    assert (counted, taken) == (2, 12)
    equal(rows, fresh(more, FIRST, queries=both)[0])


@pytest.mark.parametrize("changed", ["settings", "gallery", "queries"])
def test_other_settings_or_other_photos_are_verified_again(runs, fresh, changed):
    runs(BEFORE, FIRST)
    about = {
        "settings": {"settings": replace(VerifySettings(), max_residual_px=3.0)},
        "gallery": {"gallery": (("other", 2),)},
        "queries": {"queries": (("other", 1),)},
    }[changed]
    about = {"gallery": FIRST, **about}
    rows, counted, taken = runs(BEFORE, **about)
    assert (counted, taken) == (12, 0)
    equal(rows, fresh(BEFORE, **about)[0])


def test_min_inliers_verifies_nothing_again(runs):
    first = runs.declared(BEFORE, FIRST)
    other = runs.declared(BEFORE, FIRST, settings=VerifySettings(min_inliers=30))
    assert first.fingerprint == other.fingerprint


@pytest.mark.parametrize("damage", ["lost", "cut short", "of an earlier lmr"])
def test_what_is_damaged_or_says_not_what_it_is_of_is_verified_again(runs, fresh, damage):
    runs(BEFORE, FIRST)
    before = runs.declared(BEFORE, FIRST).dataset(runs.root)
    path, rows = Path(before.shard_url(0)), before.read(0)
    if damage == "lost":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        before.write(0, rows.replace_schema_metadata(None))
    grown, counted, taken = runs(AFTER, GROWN)
    there = before.read(1).num_rows
    assert (counted, taken) == (14 - there + 1, there - 1)  # of shard 1 the third query has 4 anew, one left
    equal(grown, fresh(AFTER, GROWN)[0])
