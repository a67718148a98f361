"""Duplicates in a run: marked, put together, or left out, and queries that lie in the gallery too."""

import io
import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import lmr
from lmr.errors import LmrError
from lmr.features.decoding.decode import decode_photo
from lmr.features.perceptual import HASH_SIDE_PX, perceptual_hash
from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.runtime.tasks import ShardTask, make_shard
from lmr.steps.both import Both
from lmr.steps.inputs import Inputs
from lmr.steps.photos.listing import list_photos
from lmr.testing import World, write_world
from workflows.retrieval import PRESETS, build


def saved(image, suffix=".jpg", **options):
    out = io.BytesIO()
    image.save(out, {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[suffix], **options)
    return out.getvalue()


def copies_of(data):
    """The same picture as a web site, a phone or a cloud leaves it: name to bytes."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    w, h = image.size
    cut = round(0.005 * w), round(0.005 * h)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[274] = 6  # to be turned back when it is shown
    return {
        "half.jpg": saved(image.resize((w // 2, h // 2)), quality=80),
        "quality 30.jpg": saved(image, quality=30),
        "lossless.png": saved(image, ".png"),
        "web.webp": saved(image, ".webp", quality=60),
        "cut by a hundredth.jpg": saved(image.crop((*cut, w - cut[0], h - cut[1])), quality=90),
        "lying.jpg": saved(turned, quality=90, exif=exif),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small world; its first photo of the gallery has copies, its second query lies in the gallery too."""
    folder = tmp_path_factory.mktemp("world")
    shape = World(landmarks=3, queries=3, queries_without_landmark=0, distractors=3, long_side_px=256)
    write_world(shape, folder)
    gallery, queries = (sorted((folder / side).iterdir()) for side in ("gallery", "queries"))
    data = gallery[0].read_bytes()
    for name, copy in {"same.jpg": data, **copies_of(data)}.items():
        (folder / "gallery" / f"zz {name}").write_bytes(copy)
    for i, shade in enumerate((90, 150)):
        (folder / "gallery" / f"wall {i}.jpg").write_bytes(
            saved(Image.new("RGB", (256, 192), (shade, 80, 70)))
        )
    (folder / "gallery" / "zz query.jpg").write_bytes(queries[1].read_bytes())
    return folder


def found_in(run):
    lines = (run / "duplicates.csv").read_text().splitlines()
    assert lines[0] == "set,id,path,copy_of,copy_of_path,kind,bits"
    return [line.split(",") for line in lines[1:]]


def retrieve(world, out, action, **more):
    settings = {"duplicates": {"action": action}, "index": {"lists": 16}}
    return lmr.retrieve(
        *(str(world / side) for side in ("gallery", "queries")),
        out=str(out),
        settings=settings,
        workers=0,
        **more,
    )


@pytest.mark.slow
def test_every_copy_is_listed_with_what_it_is_a_copy_of_and_stands_beside_it(world, tmp_path):
    plain = retrieve(world, tmp_path / "run", "off").matches()
    assert not (tmp_path / "run/duplicates.csv").exists()
    run = retrieve(world, tmp_path / "run", "mark")
    rows = found_in(tmp_path / "run")
    first = run.photos()["path"][0]
    kinds = {path: (of, kind) for side, _, path, _, of, kind, _ in rows if side == "gallery"}
    names = {f"zz {name}": "near" for name in copies_of((world / "gallery" / first).read_bytes())}
    assert kinds == {"zz same.jpg": (first, "exact"), **{n: (first, kind) for n, kind in names.items()}}
    (asked,) = [row for row in rows if row[0] == "queries"]
    assert asked[2] == sorted(path.name for path in (world / "queries").iterdir())[1]
    assert asked[4:] == ["zz query.jpg", "exact", "0"]
    notes = [d.facts(0).get("note") for d in run.datasets.steps if d.step == "find_copies_queries"]
    assert notes == ["7 gallery photos are copies; 1 query is in the gallery too: see duplicates.csv"]
    # Results are those without the search for copies.
    assert plain.equals(run.matches())
    grouped = retrieve(world, tmp_path / "run", "group")
    first = {path: of for side, _, path, _, of, _, _ in rows if side == "gallery"}
    for _, matches in grouped.matches().groupby("query"):
        groups = [first.get(path, path) for path in matches["photo_path"]]
        changes = sum(a != b for a, b in itertools.pairwise(groups))
        assert changes == len(set(groups)) - 1
    assert grouped.stages[-1] == "group"
    assert grouped.ranking("diffuse").equals(run.ranking("diffuse"))


@pytest.mark.slow
def test_one_of_each_stays_in_the_gallery(world, tmp_path):
    run = retrieve(world, tmp_path / "run", "keep")
    listed = set(run.matches()["photo_path"])
    gone = run.unusable()
    assert set(gone["reason"]) == {"copy of another photo"}
    assert len(gone) == 7
    assert not listed & set(gone["path"])
    assert "zz query.jpg" in listed


def flow_of(world, settings, starts=(0,)):
    photos = Both(*(list_photos(r, str(world / r)) for r in ("gallery", "queries")))
    photos = Both(replace(photos.gallery, starts=starts), photos.queries)
    return build(Inputs(photos=photos), layer(PRESETS["vlad"], settings))


def test_nothing_is_made_anew_where_copies_are_only_marked(world):
    def names(action):
        flow = flow_of(world, {"duplicates": {"action": action}})
        return {f"{step.name} {step.fingerprint}" for step in closure(flow.targets)}

    off, mark, group = names("off"), names("mark"), names("group")
    assert off < mark
    assert {name.split()[0] for name in mark - off} == {
        *("hash_photos", "hash_photos_queries", "find_copies", "find_copies_queries"),
    }
    assert off - group == {n for n in off if n.split()[0] == "submit"}


def test_photos_that_are_added_later_are_compared_with_those_before(world, tmp_path):
    flow = flow_of(
        world, {"duplicates": {"action": "mark"}, "ingest": {"photos_per_shard": 4}}, starts=(0, 9)
    )
    whole = flow_of(world, {"duplicates": {"action": "mark"}, "ingest": {"photos_per_shard": 4}})
    tables = []
    for one, root in ((flow, str(tmp_path / "two")), (whole, str(tmp_path / "one"))):
        for photos in one.inputs.photos.values():
            for generation in photos.generations():
                generation.given().store(root)
        for step in closure([one.copies.queries]):
            for shard in range(step.shards):
                assert not make_shard(ShardTask.of(step, root), shard).error
            assert step.cost.rows >= sum(step.dataset(root).read(i).num_rows for i in range(step.shards))
        rows = one.copies.source.dataset(root)
        tables.append([rows.read(i).to_pylist() for i in range(rows.shards)])
    assert [row for part in tables[0] for row in part] == tables[1][0]
    assert all(row["photo"] >= 9 for row in tables[0][1])
    assert len(flow.copies.source.parts) == 2


def test_copies_have_near_hashes_and_other_photos_have_not(world):
    photos = [
        path for path in sorted((world / "gallery").iterdir()) if not path.name.startswith(("zz", "wall"))
    ]

    def hashed(data):
        return perceptual_hash(decode_photo(data, max_side_px=HASH_SIDE_PX))

    hashes = np.stack([hashed(path.read_bytes()) for path in photos])
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(-1, dtype=int)
    assert apart[np.triu_indices(len(photos), 1)].min() > 40
    for path, mine in zip(photos, hashes, strict=True):
        for name, copy in copies_of(path.read_bytes()).items():
            assert np.bitwise_count(mine ^ hashed(copy)).sum() <= 24, name
    assert hashed((world / "gallery/wall 0.jpg").read_bytes()) is None


def test_without_the_library_its_extra_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(LmrError) as caught:
        perceptual_hash(np.zeros((8, 8, 3), np.uint8))
    assert caught.value.fix == 'pip install "lmr[duplicates]"'
