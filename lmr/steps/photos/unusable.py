"""Check photos: those that cannot be used, from all image shards, in one small dataset."""

import pyarrow as pa
import pyarrow.compute as pc

from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Source, Step, Whole
from lmr.steps.both import Both
from lmr.storage.datasets import Dataset

__all__ = ["check_photos", "check_photos_shard"]


def check_photos(images: Both[Source]) -> Step:
    """Declare the step that lists unusable photos: columns `set`, `photo` (its row), `reason`."""
    photos = images.gallery.rows + images.queries.rows
    return Step(
        name="check_photos",
        folder="unusable",
        make=check_photos_shard,
        settings=Settings(),
        inputs={role: Whole(source) for role, source in images.items()},
        shards=1,
        revision=2,  # until 1 it named photos by their short names
        # A bad photo takes a row; a gallery may hold nothing else.
        cost=Cost(rows=photos, bytes_per_row=100.0, task_bytes=1000.0 * photos, work=photos, unit="photo"),
    )


def check_photos_shard(shard: int, settings: Settings, **images: Dataset) -> pa.Table:
    """List the unusable photos of all shards."""
    schema = pa.schema([("set", pa.string()), ("photo", pa.int32()), ("reason", pa.string())])
    parts = [schema.empty_table()]
    for name, dataset in images.items():
        for i in range(dataset.shards):
            rows = dataset.read(i, ["photo", "reason"])
            bad = rows.filter(pc.not_equal(rows.column("reason"), ""))
            sets = pa.array([name] * len(bad), pa.string())
            parts.append(pa.table([sets, bad.column("photo"), bad.column("reason")], schema=schema))
    return pa.concat_tables(parts)
