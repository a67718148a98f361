"""Shards are bounded by bytes as well as by count, and photos may be made smaller on the way in."""

import io

import numpy as np
import pytest
from PIL import Image

from lmr.features.decoding.decode import decode_photo
from lmr.features.decoding.process import inspect_apart
from lmr.steps.photos.generations import recall, remember
from lmr.steps.photos.ingest import IngestSettings, ingest, ingest_shard
from lmr.steps.photos.listing import Photos
from tests.features.test_decode import exif, file, noise, scene
from tests.features.test_kinds_of_photos import smooth


def photos(sizes, starts=(0,)):
    paths = tuple(f"{i:04d}.jpg" for i in range(len(sizes)))
    stamps = tuple(f"{size} {i}" for i, size in enumerate(sizes))
    return Photos("gallery", "/x", tuple(p[:-4] for p in paths), paths, stamps, starts)


@pytest.mark.parametrize("seed", range(8))
def test_no_shard_holds_more_bytes_or_photos_than_it_may(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(8, 1, 300).astype(int).tolist()
    most, most_bytes = int(rng.integers(5, 60)), int(rng.integers(20_000, 200_000))
    bounded = photos(sizes, (0, 100)).in_shards_of(most, most_bytes)
    layout = bounded.layout
    shards = {}
    for row, size in enumerate(sizes):
        shard, place = layout.place(row)
        shards.setdefault(shard, []).append(size)
        assert place == len(shards[shard]) - 1
    assert sorted(shards) == list(range(bounded.shards))
    for some in shards.values():
        assert len(some) <= most
        assert sum(size for size in some if size <= most_bytes) <= most_bytes
    # The steps have the same shards.
    parts = ingest(bounded, IngestSettings(photos_per_shard=most, shard_bytes=most_bytes)).parts
    assert sum(part.shards for part in parts) == bounded.shards
    assert [part.settings.photos_per_shard for part in parts] == list(layout.counts)


def test_small_photos_lie_in_shards_as_before_and_one_giant_changes_little():
    assert photos([10] * 300).in_shards_of(128, 10**9).shards == 3
    assert photos([10] * 300).in_shards_of(128).layout.counts == ()
    for giant in (10**7, 10**9):
        count = photos([10**6] * 90 + [giant] + [10**6] * 50).in_shards_of(128, 10**8).layout.counts[0]
        assert 60 < count <= 100


def test_larger_photos_that_are_added_leave_the_shards_of_others(tmp_path):
    settings = IngestSettings(photos_per_shard=8, shard_bytes=100)
    first = photos([10] * 20)
    remember(recall(first, str(tmp_path)).photos, str(tmp_path))
    grown = recall(photos([10] * 20 + [60] * 5), str(tmp_path)).photos
    assert ingest(grown, settings).parts[0].fingerprint == ingest(first, settings).parts[0].fingerprint
    assert [part.shards for part in ingest(grown, settings).parts] == [3, 5]


def shrunk_rows(folder, contents, root, **settings):
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    stamps = tuple(f"{len(data)} 1" for data in contents.values())
    listed = Photos("gallery", str(folder), tuple(contents), tuple(contents), stamps)
    listed.given().store(str(root))
    rows = ingest_shard(
        0, IngestSettings(**settings), photos=listed.given().dataset(str(root)), url=str(folder)
    )
    return dict(zip(contents, rows.to_pylist(), strict=True))


def test_larger_photos_are_shrunk_upright_and_smaller_ones_stay(tmp_path):
    contents = {
        "large.jpg": file(smooth(600, 900)),
        "turned.jpg": file(Image.fromarray(scene()).resize((640, 480)), exif=exif(6)),
        "alpha.png": file(Image.fromarray(scene()).resize((500, 400)).convert("RGBA"), "PNG"),
        "small.png": file(scene(), "PNG"),
        "edge.jpg": file(noise(200, 300)),
        "damaged.jpg": b"no photo",
    }
    found = shrunk_rows(tmp_path / "photos", contents, tmp_path / "run", max_side_px=300)
    for name in ("large.jpg", "turned.jpg", "alpha.png"):
        image = Image.open(io.BytesIO(found[name]["image"]))
        assert image.format == "JPEG"
        assert image.size == (found[name]["width"], found[name]["height"])
        assert max(image.size) == 300
        expected = decode_photo(contents[name], max_side_px=300).astype(int)
        got = np.asarray(image.convert("RGB")).astype(int)
        assert got.shape == expected.shape
        assert np.abs(got - expected).mean() < 4  # another turn or part would be 40 and more
    for name in ("small.png", "edge.jpg"):
        assert found[name]["image"] == contents[name]
    assert found["damaged.jpg"]["reason"] == "not an image"
    assert found["damaged.jpg"]["image"] == b""


def test_what_is_shrunk_is_that_photo_and_no_other():
    large, small = file(noise(400, 500)), file(scene())
    first = inspect_apart(large, max_side_px=100)
    assert first.shrunk
    assert inspect_apart(small, max_side_px=100).shrunk == b""
    assert inspect_apart(large, max_side_px=100) == first
    assert inspect_apart(large).shrunk == b""
