"""The local index is built sub-index by sub-index: what is finished stays, none needs the whole gallery."""

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmr.cluster.client import Where
from lmr.errors import ShardError
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Step
from lmr.scheduler.run import run
from lmr.steps.features.local import Extracted
from lmr.steps.local_search.index import (
    IndexSettings,
    descriptors_of,
    index_features_shard,
    index_local,
)
from lmr.steps.local_search.merged import open_sub_indexes
from lmr.storage.arrow import table
from tests.support.costs import cost
from tests.support.descriptor_clusters import clusters
from tests.support.toys import Quiet

FEATURES = 40


def features(shard, settings):
    return table(
        {
            "photo": np.repeat(np.arange(2 * shard, 2 * shard + 2, dtype=np.int32), FEATURES // 2),
            "descriptor": clusters(FEATURES, 16, shard).astype(np.float16),
        }
    )


def declared():
    """Local features of six shards, and their index of three sub-indexes."""
    local = Step(
        name="extract_local",
        folder="local/gallery",
        make=features,
        settings=Settings(),
        inputs={},
        shards=6,
        cost=cost(6 * FEATURES, 40.0),
        role="gallery",
    )
    extracted = Extracted(local, 12, FEATURES // 2, 16, 2)
    index = index_local(extracted, IndexSettings(lists=4, gallery_shards_per_index=2))
    return local, index.parts


def hangs_at_the_second(shard, settings, **inputs):
    marks = Path(os.environ["LMR_CACHE"])
    if (marks / "first").exists():
        (marks / "second").touch()
        time.sleep(600)
    (marks / "first").touch()
    return index_features_shard(shard, settings, **inputs)


def build(root, make):
    run([replace(declared()[1], make=make)], root, Where(), Quiet())


def test_a_build_that_is_killed_between_sub_indexes_goes_on_from_there(tmp_path, cache_folder):
    root = str(tmp_path / "run")
    process = multiprocessing.get_context("spawn").Process(target=build, args=(root, hangs_at_the_second))
    process.start()
    deadline = time.monotonic() + 120
    while not (cache_folder / "second").exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.join()
    _, index = declared()
    assert len(index.dataset(root).present()) == 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*.parquet")}
    outcome = run([index], root, Where(), Quiet())
    assert [(s.step, s.made, s.found) for s in outcome.summaries] == [("index", 2, 1)]
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())
    assert [part.ntotal for part in open_sub_indexes(index.dataset(root), 0)] == [2 * FEATURES] * 3


def test_a_sub_index_reads_its_own_shards_one_at_a_time(tmp_path):
    root = str(tmp_path / "run")
    local, index = declared()
    run([index], root, Where(), Quiet())
    dataset, made = local.dataset(root), index.dataset(root)
    whole = made.read(1)
    for shard in (0, 1, 4, 5):
        os.remove(dataset.shard_url(shard))
    os.remove(made.shard_url(1))
    run([index], root, Where(), Quiet())
    assert made.read(1).equals(whole)
    parts = descriptors_of(dataset, 1, 2)
    descriptors, photos = next(parts)
    assert descriptors.shape == (FEATURES, 16)
    assert sorted(set(photos.tolist())) == [4, 5]
    os.remove(dataset.shard_url(3))
    with pytest.raises(ShardError, match="extract_local/00003 is missing"):
        next(parts)
