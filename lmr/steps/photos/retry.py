"""Retry: photos that could not be had for a reason that may pass are tried again, and only these."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmr.errors import StorageError
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Step, of_role
from lmr.steps.photos.ingest import MAY_PASS, IngestSettings, checked, contents, with_notes
from lmr.steps.photos.listing import Photos
from lmr.steps.photos.web import WebSettings
from lmr.storage.datasets import Dataset

__all__ = ["Retry", "RetrySettings", "failed_rows", "retry_photos", "retry_shard"]


@dataclass(frozen=True, kw_only=True)
class RetrySettings(Settings):
    """What is tried again."""

    attempt: int
    """The number of the try; every one is a dataset of its own."""

    shards: tuple[int, ...]
    """The shards of `images` that hold such photos."""


@dataclass(frozen=True)
class Retry:
    """Photos of one generation that are tried again.

    Attributes
    ----------
    step
        The step that tries them. A shard of it is a shard of `images` with what has changed: photos that are
        there now have no reason against them any more, and others the reason of this try.
    images
        The step that made the photos' shards.
    photos
        The photos of the generation.
    shards
        Which shards of `images` hold photos to be tried, in the order of the step's own.
    count
        How many photos are tried.
    """

    step: Step
    images: Step
    photos: Photos
    shards: tuple[int, ...]
    count: int

    def path(self, row: int) -> str:
        """Return the path that a photo is known by, of its row."""
        return self.photos.paths[row - self.photos.first_row]

    def outcome(self, root: str) -> tuple[dict[int, list[int]], list[str]]:
        """Return shard of `images` to the rows that are there now, if any; and the reasons of the others."""
        dataset, retried = self.images.dataset(root), self.step.dataset(root)
        good: dict[int, list[int]] = {}
        still: list[str] = []
        for place, shard in enumerate(self.shards):
            rows = retried.read(place, ["photo", "reason"]).to_pylist()
            for row in (rows[i] for i in failed_rows(dataset, shard)):
                if row["reason"]:
                    still.append(row["reason"])
                else:
                    good.setdefault(shard, []).append(row["photo"])
        return good, still


def failed_rows(images: Dataset, shard: int) -> list[int]:
    """Return the places in a shard of the photos that are not used for a reason that may pass."""
    rows = images.read(shard, ["note", "reason"])
    bad = pc.and_(pc.equal(rows.column("note"), MAY_PASS), pc.not_equal(rows.column("reason"), ""))
    return [int(i) for i in np.flatnonzero(bad.to_numpy())]


def retry_photos(photos: Photos, images: Step, root: str, attempt: int, web: WebSettings) -> Retry | None:
    """Look for photos of one generation to try again; None where there is none."""
    dataset = images.dataset(root)
    found = {shard: len(failed_rows(dataset, shard)) for shard in sorted(dataset.present())}
    shards = tuple(shard for shard, count in found.items() if count)
    if not shards:
        return None
    step = Step(
        name=of_role("retry", images),
        folder=f"retried/{photos.role}",
        role=photos.role,
        make=retry_shard,
        settings=RetrySettings(attempt=attempt, shards=shards),
        inputs={"photos": photos.given()},
        shards=len(shards),
        cost=Cost(
            rows=len(shards) * photos.per_shard,
            bytes_per_row=images.cost.bytes_per_row,
            task_bytes=images.cost.task_bytes,
            work=sum(found.values()),
            unit="photo",
        ),
        placement={
            "images": dataset,
            "ingest": images.settings,
            "url": photos.url,
            "moved": photos.moved,
            "web": web,
        },
    )
    return Retry(step, images, photos, shards, sum(found.values()))


def retry_shard(
    shard: int,
    settings: RetrySettings,
    *,
    photos: Dataset,
    images: Dataset,
    ingest: IngestSettings,
    url: str,
    moved: Mapping[str, str],
    web: WebSettings,
) -> pa.Table:
    """Try the photos of one shard again, and return its rows as they are then."""
    before = images.read(settings.shards[shard])
    wanted = failed_rows(images, settings.shards[shard])
    count = ingest.photos_per_shard
    first = settings.shards[shard] * count
    listed = photos.read(0, rows=range(first, first + count)).to_pydict()
    paths = [moved.get(listed["path"][i], listed["path"][i]) for i in wanted]
    stamps = [listed["stamp"][i] for i in wanted]
    rows = before.to_pylist()
    for i, content in contents(url, paths, stamps, ingest, web):
        # What storage cannot give now stays as it was.
        if not isinstance(content, StorageError):
            rows[wanted[i]] |= checked(content, stamps[i], ingest)._asdict()
    made = pa.Table.from_pylist(rows, schema=before.schema.remove_metadata())
    return with_notes(made, made.column("reason").to_pylist(), made.column("note").to_pylist())
