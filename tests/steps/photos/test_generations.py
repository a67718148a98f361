"""A gallery that grows: what is known, what is made, and that it gives what one gallery gives."""

import itertools
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmr.cluster.client import Where
from lmr.errors import StorageError
from lmr.runtime.settings import layer
from lmr.runtime.steps import Given, closure, concat
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.photos.generations import LEARN_AGAIN, learned_from, recall, remember
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.photos.listing import Photos, list_photos, photos_of
from lmr.steps.ranking import read_ranking
from lmr.steps.workflow import Inputs, Weights
from tests.support.toys import Quiet
from tests.support.world import arguments, lmr, make, submission
from workflows import retrieval


def photos(ids, *, changed=()):
    stamps = tuple(f"{10 + (i in changed)} 1.5" for i in ids)
    return Photos("gallery", "/photos", tuple(ids), tuple(f"{i}.jpg" for i in ids), stamps)


def seen(root, listed):
    """What a run does with a listing."""
    recalled = recall(listed, root)
    remember(recalled.photos.in_shards_of(2), root)
    return recalled


def test_new_photos_stand_behind_those_that_are_known(tmp_path):
    root = str(tmp_path)
    assert seen(root, photos("bdf")) == recall(photos("bdf"), root)
    assert recall(photos("bdf"), root).news == ""
    grown = seen(root, photos("abcdef"))
    assert "".join(grown.photos.ids) == "bdface"
    assert grown.photos.starts == (0, 3)
    assert grown.news == "3 photos of the gallery are new to this run, which knows 3"
    assert seen(root, photos("abcdef")).photos == grown.photos
    again = seen(root, photos("0abcdefg"))
    assert "".join(again.photos.ids) == "bdface0g"
    assert again.photos.starts == (0, 3, 6)
    assert again.photos.paths == tuple(f"{i}.jpg" for i in "bdface0g")


def test_a_generation_does_not_depend_on_later_ones(tmp_path):
    root, settings = str(tmp_path), IngestSettings(photos_per_shard=2)
    first = ingest(seen(root, photos("bdf")).photos, settings)
    grown = ingest(seen(root, photos("abcdef")).photos, settings)
    again = ingest(seen(root, photos("0abcdefg")).photos, settings)
    assert [part.fingerprint for part in again.parts[:2]] == [part.fingerprint for part in grown.parts]
    assert grown.parts[0].fingerprint == first.fingerprint
    assert [part.shards for part in again.parts] == [2, 2, 1]
    listed = again.parts[1].inputs["photos"]
    assert listed.rows.to_pydict()["photo"] == [3, 4, 5]


@pytest.mark.parametrize("listed", [photos("bd"), photos("abcdf", changed="d")])
def test_photos_that_are_gone_or_changed_begin_anew_and_restored_ones_go_on(tmp_path, listed):
    root = str(tmp_path)
    seen(root, photos("bdf"))
    grown = seen(root, photos("abcdf")).photos
    shrunk = photos("abcd")
    told = seen(root, shrunk)  # f is gone
    assert told.photos == shrunk
    assert told.news.startswith(
        "1 of the 5 photos of the gallery that this run knows are gone or have changed"
    )
    other = recall(listed, root)
    assert other.photos.starts == (0,)
    assert "begins anew" in other.news
    assert seen(root, photos("abcdf")).photos == grown
    assert "".join(seen(root, photos("abcdfz")).photos.ids) == "bdfacz"
    # The first list alone is there again: what was made of it is found.
    assert recall(photos("bdf"), root).photos == photos("bdf")


@pytest.mark.parametrize("damage", ["deleted", "emptied", "flipped"])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_list_is_known_by_its_fingerprint(tmp_path, damage, lost):
    root = str(tmp_path)
    for listed in ("bdf", "abcdf", "abcdefg"):
        whole = seen(root, photos(listed)).photos
    given = whole.generations()[lost].given()
    path = Path(given.dataset(root).shard_url(0))
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "emptied" else content[:99] + b"?" + content[100:])
    again = recall(photos("abcdefg"), root)
    assert (again.photos, again.news) == (whole, "")
    # With new photos too, it cannot be told which are new: what is known of the generations before counts.
    unknown = recall(photos("abcdefgh"), root)
    if lost:
        known = sum(len(generation) for generation in whole.generations()[:lost])
        assert unknown.photos.starts == (*whole.starts[:lost], known)
    else:
        assert "1 of the 3 lists of the gallery's photos that this run knows are gone or" in unknown.news
        assert unknown.photos == photos("abcdefgh")
    path.write_bytes(content)
    assert recall(photos("abcdefg"), root).photos == whole


def test_a_damaged_memory_is_told_and_a_lost_list_begins_anew(tmp_path):
    root = str(tmp_path)
    seen(root, photos("bdf"))
    memory = tmp_path / "photos" / "gallery" / "generations.json"
    (fingerprint,) = json.loads(memory.read_text())["content"][0]
    shutil.rmtree(tmp_path / "photos" / "gallery" / fingerprint)
    told = recall(photos("abdf"), root).news
    assert "1 of the 1 lists of the gallery's photos that this run knows are gone or damaged" in told
    memory.write_text("[{")
    with pytest.raises(StorageError, match=r"generations\.json is not what lmr wrote(.|\n)*delete "):
        recall(photos("bdf"), root)


def test_a_run_on_s3_remembers_too(moto_s3):
    seen(moto_s3, photos("bdf"))
    assert "".join(seen(moto_s3, photos("abcdef")).photos.ids) == "bdface"
    assert recall(photos("abcdef"), moto_s3).photos.starts == (0, 3)


def test_another_number_of_photos_per_shard_reads_every_photo(tmp_path):
    """The list of photos is stored once per run, in row groups for the first number."""
    folder, root = tmp_path / "photos", str(tmp_path / "run")
    folder.mkdir()
    for name in "abcdefg":
        (folder / f"{name}.jpg").write_bytes(b"no photo")
    for count in (2, 3, 10):
        images = ingest(list_photos("gallery", str(folder)), IngestSettings(photos_per_shard=count))
        run(images.parts, root, Where(), Quiet())
        shards = [images.dataset(root).read(i, ["id"]).column("id").to_pylist() for i in range(images.shards)]
        assert [len(ids) for ids in shards[:-1]] == [count] * (images.shards - 1)
        assert "".join(itertools.chain(*shards)) == "abcdefg"


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 40))
def test_places_are_where_ingest_puts_photos(sizes, per_shard, kept):
    starts = tuple(np.cumsum([0, *sizes[:-1]]).tolist())
    whole = replace(photos([f"{i:02d}" for i in range(sum(sizes))]), starts=starts)
    listed = whole.first(kept)
    assert listed.ids == whole.ids[:kept]
    parts = listed.generations()
    assert tuple(i for part in parts for i in part.ids) == listed.ids
    shards = [
        range(part.first_row + a, min(part.first_row + a + per_shard, part.first_row + len(part)))
        for part in parts
        for a in range(0, len(part), per_shard)
    ]
    assert len(shards) == ingest(listed, IngestSettings(photos_per_shard=per_shard)).shards
    for row in range(len(listed)):
        shard, inside = listed.in_shards_of(per_shard).layout.place(row)
        assert shards[shard][inside] == row


@given(st.lists(st.integers(1, 100), min_size=1, max_size=12))
def test_what_is_learned_stays_until_the_gallery_has_doubled(sizes):
    starts = tuple(np.cumsum([0, *sizes[:-1]]).tolist())
    listed = replace(photos([str(i) for i in range(sum(sizes))]), starts=starts)
    parts = ingest(listed, IngestSettings()).parts
    counts = [len(learned_from(concat(parts[: n + 1])).parts) for n in range(len(parts))]
    assert counts[0] == 1
    for n, (before, now) in enumerate(itertools.pairwise(counts), start=1):
        doubled = sum(sizes[: n + 1]) > LEARN_AGAIN * sum(sizes[:before])
        assert now == (n + 1 if doubled else before)


def steps_of(preset, *sizes):
    """The steps of a workflow, as (name, fingerprint), on a gallery of generations of so many photos."""
    starts = tuple(np.cumsum([0, *sizes[:-1]]).tolist())
    gallery = replace(photos([f"{i:03d}" for i in range(sum(sizes))]), starts=starts)
    queries = replace(photos("qr"), role="queries")
    inputs = Inputs(photos=Both(gallery, queries), weights=Weights("w.pth", "0"))
    flow = retrieval.build(inputs, retrieval.PRESETS[preset])
    return {(step.name, step.fingerprint) for step in closure(flow.targets)}


@pytest.mark.parametrize("preset", ["vlad", "triangulation", "gem"])
def test_growing_leaves_what_is_per_photo_and_what_is_learned_until_it_has_doubled(preset):
    first = steps_of(preset, 40)
    per_photo = {"ingest", "extract_local", *(["network"] if preset == "gem" else [])}
    learned = {"train_quantiser", "learn_whitening" if preset == "gem" else "learn_words"}
    described = {"index", "extract_global", "extract_global_queries"}
    queries = {"ingest_queries", "extract_local_queries", *(["network_queries"] if preset == "gem" else [])}
    kept = {name for name, _ in steps_of(preset, 40, 20) & first}
    assert kept == per_photo | learned | described | queries
    assert {name for name, _ in steps_of(preset, 40, 41) & first} == per_photo | queries
    assert len(steps_of(preset, 40, 41) & steps_of(preset, 40, 41, 9)) > len(first & steps_of(preset, 40, 41))


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A run on two thirds of a world, then on all of it: folder, what was printed, files of the first."""
    folder = tmp_path_factory.mktemp("grown")
    world, out = make(folder / "world"), folder / "run"
    later = [*sorted((world / "gallery").iterdir())[1::3], *sorted((world / "queries").iterdir())[::3]]
    (folder / "later").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(folder / "cache"))
        for file in later:
            shutil.move(file, folder / "later")
        lmr(*arguments(world, out, "--workers", "0"))
        before = {path: path.stat().st_mtime_ns for path in out.rglob("part-*.parquet")}
        for file in later:
            shutil.move(folder / "later" / file.name, file)
        printed = lmr(*arguments(world, out, "--plan")), lmr(*arguments(world, out, "--workers", "0"))
        yield folder, printed, before


def test_growing_makes_only_new_shards_of_what_is_per_photo(grown):
    folder, _, before = grown
    made = Counter()
    for path in (folder / "run").rglob("part-*.parquet"):
        if path in before:
            assert path.stat().st_mtime_ns == before[path]
        else:
            made["/".join(path.relative_to(folder / "run").parts[:-2])] += 1
    # 25 photos lie in three shards of ten, 12 more in two and one more sub-index. Six queries, three more.
    of_gallery = {"images/gallery": 2, "local/gallery": 2, "global/gallery": 2, "index": 1}
    of_queries = {"images/queries": 1, "local/queries": 1, "global/queries": 1}
    of_all = {"candidates": 2, "pairs": 5, "neighbours": 5, "augmented": 5, "graph": 5, "final": 2}
    expected = {**of_gallery, **of_queries, **of_all, "quantiser": 0, "vocabulary": 0}
    assert {name: made[name] for name in expected} == expected


def test_the_plan_and_the_end_tell_what_is_new(grown):
    _, (plan, printed), _ = grown
    for text in (plan, printed):
        assert "12 photos of the gallery are new to this run, which knows 25" in text
        assert "3 photos of the queries are new to this run, which knows 6" in text
    assert re.search(r"ingest +│ +5 │ +2 │", plan)
    assert re.search(r"ingest +│ +2 │ +3 │ +12 │", printed)
    # The damaged photos of the first generation are still told.
    assert "3 photo(s) could not be used" in printed


@pytest.mark.slow
@pytest.mark.cluster
def test_growing_on_a_cluster_gives_what_one_process_gives(grown, tmp_path):
    folder, _, before = grown
    out = tmp_path / "run"
    for path in before:
        there = out / path.relative_to(folder / "run")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, there)
    for memory in ("photos/gallery/generations.json", "photos/queries/generations.json"):
        history = json.loads((folder / "run" / memory).read_text())["content"]
        (out / memory).write_text(json.dumps(history[:1]))
    printed = lmr(*arguments(folder / "world", out, "--workers", "2"))
    assert re.search(r"extract_local +│ +2 │ +3 │", printed)
    assert submission(out) == submission(folder / "run")


def test_a_pruned_run_takes_the_first_photos_and_leaves_no_trace(grown):
    folder = grown[0]
    memory = (folder / "run" / "photos" / "gallery" / "generations.json").read_text()
    printed = lmr(*arguments(folder / "world", folder / "run", "--prune", "1", "--plan"))
    assert re.search(r"ingest +│ +1 │ +1 │ +10 │", printed)
    printed = lmr(*arguments(folder / "world", folder / "run", "--prune", "3", "--plan"))
    # The first generation is there; the first five photos of the second are a list of their own.
    assert re.search(r"ingest +│ +4 │ +1 │ +30 │", printed)
    assert (folder / "run" / "photos" / "gallery" / "generations.json").read_text() == memory


def flow_of(folder, method, **changes):
    """The workflow on the grown world, or on the same photos with `starts` changed."""
    settings = layer(
        retrieval.PRESETS["vlad"], {"ingest": {"photos_per_shard": 10}, "search": {"method": method}}
    )
    gallery, queries = (
        replace(
            recall(list_photos(name, str(folder / "world" / name)), str(folder / "run")).photos, **changes
        )
        for name in ("gallery", "queries")
    )
    return retrieval.build(Inputs(photos=Both(gallery, queries)), settings)


def ranking_of(step, root):
    """The photos and scores of all queries."""
    parts = [read_ranking(step.dataset(root), shard) for shard in range(step.shards)]
    return np.concatenate([p.photos for p in parts]), np.concatenate([p.scores for p in parts])


def with_learned(source, learned, done):
    """Rebuild a step on its inputs with what is learned put in from elsewhere."""
    if source.fingerprint not in done:
        (step,) = source.parts
        inputs = {
            name: given if isinstance(given, Given) else type(given)(with_learned(given.step, learned, done))
            for name, given in step.inputs.items()
        }
        done[step.fingerprint] = learned.get(step.name) or replace(step, inputs=inputs)
    return done[source.fingerprint]


@pytest.mark.parametrize(
    ("method", "models", "rankings"),
    [
        ("votes", ["train_quantiser", "learn_words"], ["search", "verify", "rank", "expand", "diffuse"]),
        ("asmk", ["train_codebook"], ["search"]),
    ],
)
def test_a_grown_gallery_gives_what_one_gallery_gives(grown, method, models, rankings):
    folder = grown[0]
    ours, root = flow_of(folder, method), str(folder / "run")
    assert ours.inputs.photos.gallery.starts == (0, 25)
    learned = {step.name: step for step in closure(ours.targets) if step.name in models}
    assert len(learned) == len(models)
    once, done = flow_of(folder, method, starts=(0,)), {}
    assert once.local.map(lambda local: local.source.shards) == Both(4, 1)
    theirs = {name: with_learned(once.rankings[name].step, learned, done) for name in rankings}
    run([*theirs.values(), *(ours.rankings[name].step for name in rankings)], root, Where(), Quiet())
    for name in rankings:
        step = ours.rankings[name].step
        assert step.fingerprint != theirs[name].fingerprint
        (found, scores), (expected, expected_scores) = (ranking_of(s, root) for s in (step, theirs[name]))
        np.testing.assert_array_equal(found, expected)
        # Sums over more parts round elsewhere.
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)
        # Photos of both generations are found.
        assert (found >= 25).any()
        assert ((found >= 0) & (found < 25)).any()


def renamed(listed, names):
    """Return a listing in which photos have other names, as the next one would be."""
    paths = [names.get(path, path) for path in listed.paths]
    return photos_of("gallery", "/photos", dict(zip(paths, listed.stamps, strict=True)))


def distinct(ids):
    return photos_of("gallery", "/photos", {f"{i}.jpg": f"{10 + n} 1.5" for n, i in enumerate(ids)})


def test_a_renamed_photo_stays_known_and_is_read_where_it_is(tmp_path):
    root = str(tmp_path)
    first = seen(root, distinct("abcd")).photos
    listed = renamed(first, {"b.jpg": "zz top.jpg"})
    again = seen(root, listed)
    assert again.news == ""
    assert again.photos.given().fingerprint == first.given().fingerprint
    assert again.photos.named().fingerprint != first.named().fingerprint
    row = again.photos.ids.index("zz%20top.jpg")
    assert again.photos.piece(row).url == "/photos/zz top.jpg"
    assert again.photos.named().rows.column("path").to_pylist()[row] == "zz top.jpg"
    # Renamed back, or once more, it is the same still.
    assert seen(root, distinct("abcd")).photos == first
    more = renamed(listed, {"zz top.jpg": "other.jpg", "d.jpg": "d/d.jpg"})
    assert recall(more, root).photos.given().fingerprint == first.given().fingerprint


def test_a_photo_is_taken_for_a_renamed_one_only_if_it_alone_can_be_it(tmp_path):
    root = str(tmp_path)
    alike = {"a.jpg": "10 1.5", "b.jpg": "10 1.5", "c.jpg": "11 1.5"}
    seen(root, photos_of("gallery", "/photos", alike))
    two_gone = photos_of("gallery", "/photos", {"x.jpg": "10 1.5", "y.jpg": "10 1.5", "c.jpg": "11 1.5"})
    assert "begins anew" in recall(two_gone, root).news
    copied = photos_of("gallery", "/photos", {"a.jpg": "10 1.5", "b.jpg": "10 1.5", "d.jpg": "12 1.5"})
    assert "begins anew" in recall(copied, root).news
    # A name that another photo has now is that one's.
    swapped = photos_of("gallery", "/photos", {**alike, "c.jpg": "99 2.5", "e.jpg": "11 1.5"})
    assert "begins anew" in recall(swapped, root).news


def test_a_second_photo_of_a_name_changes_the_first_ones_id_only(tmp_path):
    root = str(tmp_path)
    first = seen(root, distinct("abcd")).photos
    stamps = dict(zip(first.paths, first.stamps, strict=True))
    grown = recall(photos_of("gallery", "/photos", {**stamps, "a.png": "50 1.5"}), root).photos
    assert grown.ids == ("a.jpg", "b", "c", "d", "a.png")
    assert grown.generations()[0].given().fingerprint == first.given().fingerprint
