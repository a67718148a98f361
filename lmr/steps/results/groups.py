"""Groups of photos of one place, for people: `groups.csv`, `groups.parquet`, and a page of pictures."""

import io
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lmr import storage
from lmr.errors import PhotoError, ShardError
from lmr.evaluation.pages.groups import ShownGroup, render_groups
from lmr.features.decoding.decode import decode_photo
from lmr.steps.photos.listing import Layout
from lmr.steps.results.folder.contents import keep_grouped
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.text import csv_cell

__all__ = ["RunGroups", "group_table", "store_groups"]

MOST_SHOWN = 500
"""Groups on the page; all of them are in the files."""

_STRIP_PHOTOS, _STRIP_PX = 10, 132
_STRIP = re.compile(r"group-\d{5,}\.jpg")
_NAMED = 100


@dataclass(frozen=True, kw_only=True)
class RunGroups:
    """What the files are made of.

    Attributes
    ----------
    root
        The run's folder.
    name
        What people call the run.
    groups, photos, images
        The dataset of the step `group`, the list of the gallery's photos, and their contents.
    layout
        How photos lie in shards.
    steps
        The datasets of all steps that the groups were found by; what the run itself made may be among them.
    """

    root: str
    name: str
    groups: Dataset
    photos: Dataset
    images: Dataset
    layout: Layout
    steps: tuple[Dataset, ...] = ()

    @property
    def page(self) -> str:
        """Where the page lies."""
        return storage.join(self.root, "groups", "index.html")


def group_table(run: RunGroups) -> pa.Table:
    """Return the photos that are not alone, the largest group first, in it the photo with most links first.

    Columns: `group` (from 1), `size`, `photo`, `photo_path`, `links`, `inliers`, and `row` in the gallery.
    """
    rows = run.groups.read(0)
    group, links, inliers = (column(rows, name) for name in ("group", "links", "inliers"))
    kept = np.flatnonzero(group >= 0)
    kept = kept[np.lexsort((kept, -inliers[kept], -links[kept], group[kept]))]
    sizes = np.bincount(group[kept]) if len(kept) else np.empty(0, np.int64)
    named = run.photos.read(0, ["id", "path"]).take(pa.array(kept))
    return pa.table(
        {
            "group": (group[kept] + 1).astype(np.int32),
            "size": sizes[group[kept]].astype(np.int32),
            "photo": named.column("id"),
            "photo_path": named.column("path"),
            "links": links[kept],
            "inliers": inliers[kept],
            "row": kept.astype(np.int32),
        }
    )


def store_groups(run: RunGroups) -> None:
    """Write the files and the page into the run's folder."""
    rows = group_table(run)
    files = rows.drop_columns(["row"])
    columns = files.to_pydict()
    cells = [map(csv_cell, columns[n]) if n.startswith("photo") else map(str, columns[n]) for n in columns]
    lines = [",".join(files.column_names), *map(",".join, zip(*cells, strict=True)), ""]
    storage.put(storage.join(run.root, "groups.csv"), "\n".join(lines).encode())
    sink = pa.BufferOutputStream()
    pq.write_table(files, sink, compression="zstd")
    storage.put(storage.join(run.root, "groups.parquet"), memoryview(sink.getvalue()))
    count = int(columns["group"][-1]) if len(rows) else 0
    shown = _shown(run, rows, min(count, MOST_SHOWN))
    total = len(run.photos.read(0, ["photo"]))
    storage.put(
        run.page, render_groups(run.name, shown, groups=count, grouped=len(rows), photos=total).encode()
    )
    _remove_strips(run, {one.strip for one in shown})
    keep_grouped(run.root, run.steps, ended=True)


def _remove_strips(run: RunGroups, shown: set[str]) -> None:
    """Remove the strips of an earlier grouping with more groups; what else lies there is not ours."""
    folder = storage.join(run.root, "groups")
    for name in storage.find(folder):
        if _STRIP.fullmatch(name) and name not in shown:
            storage.delete(storage.join(folder, name))


def _shown(run: RunGroups, rows: pa.Table, count: int) -> list[ShownGroup]:
    """Return the first groups, each with a strip of its first photos beside the page."""
    number, paths, row = (rows.column(name).to_numpy() for name in ("group", "photo_path", "row"))
    starts = np.searchsorted(number, np.arange(1, count + 2))
    wanted = [row[a : min(b, a + _STRIP_PHOTOS)].tolist() for a, b in pairwise(starts)]
    pictures = _pictures(run, sorted({one for some in wanted for one in some}))
    shown = []
    for i, (a, b) in enumerate(pairwise(starts.tolist())):
        strip = _strip([pictures[one] for one in wanted[i] if one in pictures])
        name = f"group-{i + 1:05d}.jpg" if strip else ""
        if strip:
            storage.put(storage.join(run.root, "groups", name), strip)
        shown.append(
            ShownGroup(
                number=i + 1, size=b - a, strip=name, paths=tuple(map(str, paths[a : min(b, a + _NAMED)]))
            )
        )
    return shown


def _pictures(run: RunGroups, rows: list[int]) -> dict[int, Image.Image]:
    """Return small pictures of photos; one shard of photos is held at a time."""
    by_shard: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row in rows:
        shard, inside = run.layout.place(row)
        by_shard[shard].append((row, inside))
    found = {}
    for shard, some in by_shard.items():
        try:
            images = run.images.read(shard, ["image"]).column("image")
        except ShardError:  # a page without some pictures is better than none
            continue
        for row, inside in some:
            try:
                photo = Image.fromarray(decode_photo(images[inside].as_py(), max_side_px=4 * _STRIP_PX))
            except PhotoError:
                continue
            width = max(1, min(round(photo.width * _STRIP_PX / photo.height), 2 * _STRIP_PX))
            found[row] = photo.resize((width, _STRIP_PX), Image.Resampling.LANCZOS)
    return found


def _strip(pictures: list[Image.Image]) -> bytes:
    """Return pictures side by side as one JPEG; nothing of none."""
    if not pictures:
        return b""
    gap = 4
    width = sum(picture.width + gap for picture in pictures) - gap
    strip = Image.new("RGB", (width, _STRIP_PX), (128, 128, 128))
    at = 0
    for picture in pictures:
        strip.paste(picture, (at, 0))
        at += picture.width + gap
    out = io.BytesIO()
    strip.save(out, "JPEG", quality=78)
    return out.getvalue()
