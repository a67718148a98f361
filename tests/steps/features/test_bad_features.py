"""Bad local features, by votes and by ASMK: what docs/stages/verification.md states of them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lmr.cluster.client import Where
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Each, Step
from lmr.scheduler.run import RunFailed, run
from lmr.steps.both import Both
from lmr.steps.features.local import Extracted
from lmr.steps.local_search.asmk import AsmkSettings
from lmr.steps.local_search.index import IndexSettings
from lmr.steps.local_search.votes import SearchSettings, search
from lmr.steps.ranking import read_ranking
from lmr.steps.verification.rerank import rerank
from lmr.steps.verification.verify import VerifySettings, verify
from lmr.storage.arrow import column, table
from tests.support.costs import cost
from tests.support.toys import Quiet

DIMENSION = 64
PER_SHARD = 8
# Gallery rows: 0 to 7 have that many features of the landmark; then come
LANDMARK, SAME, TEXTURE, NAN, OTHER = 8, 9, 10, 11, 12
GALLERY = 16
# Queries: a photo of the landmark, one without a feature, with 3 features, of one texture, half NaN.
PLAIN, NONE, FEW, FLAT, HALF_NAN = range(5)
QUERIES = 5


@dataclass(frozen=True, kw_only=True)
class Planted(Settings):
    extractor: str = "planted"
    whole: bool = True
    """Whether features without a usable descriptor are there."""


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def landmark(seed, shift):
    """300 features of the landmark, moved by `shift` pixels, descriptors slightly changed."""
    base = np.random.default_rng(0)
    xy, descriptors = base.uniform(0, 500, (300, 2)), unit(base.normal(size=(300, DIMENSION)))
    changed = np.random.default_rng(seed).normal(scale=0.02, size=descriptors.shape)
    return xy + shift, unit(descriptors + changed)


def some_other(seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 500, (300, 2)), unit(rng.normal(size=(300, DIMENSION)))


def on_one_texture(seed):
    place = np.random.default_rng(seed).uniform(0, 500, (3000, 2))
    return place, np.repeat(landmark(0, 0)[1][:1], 3000, axis=0)


def half_nan(whole, shift):
    xy, descriptors = landmark(3, shift)
    if not whole:
        return xy[150:], descriptors[150:]
    descriptors[:75], descriptors[75:150] = np.nan, 0
    return xy, descriptors


def gallery_photo(row, whole):
    if row < 8:
        return tuple(part[:row] for part in landmark(1, 10))
    special = {
        LANDMARK: lambda: tuple(part[:250] for part in landmark(2, 30)),
        SAME: lambda: landmark(7, 0),
        TEXTURE: lambda: on_one_texture(5),
        NAN: lambda: half_nan(whole, 40),
    }
    return special[row]() if row in special else some_other(100 + row)


def query_photo(row, whole):
    return {
        PLAIN: lambda: landmark(7, 0),
        NONE: lambda: tuple(part[:0] for part in landmark(7, 0)),
        FEW: lambda: tuple(part[:3] for part in landmark(7, 0)),
        FLAT: lambda: on_one_texture(6),
        HALF_NAN: lambda: half_nan(whole, 5),
    }[row]()


def plant_images(shard, settings, *, count):
    rows = np.arange(shard * PER_SHARD, min(count, (shard + 1) * PER_SHARD), dtype=np.int32)
    return table({"photo": rows, "width": np.full(len(rows), 500), "height": np.full(len(rows), 500)})


def plant_features(shard, settings, *, images, photo):
    rows = column(images.read(shard), "photo")
    found = [photo(int(row), settings.whole) for row in rows]
    counts = [len(xy) for xy, _ in found]
    n = sum(counts)
    return table(
        {
            "photo": np.repeat(rows, counts),
            "xy": np.concatenate([xy for xy, _ in found]).astype(np.float32),
            "scale": np.full(n, 4, np.float32),
            "orientation": np.zeros(n, np.float32),
            "score": np.ones(n, np.float32),
            "descriptor": np.concatenate([d for _, d in found]).astype(np.float16),
        }
    )


def planted(name, count, photo, settings):
    def step(kind, make, **more):
        return Step(
            name=f"{kind}_{name}",
            folder=f"{kind}/{name}",
            make=make,
            settings=settings,
            shards=-(-count // PER_SHARD),
            cost=cost(count * 300, 100.0),
            role=name,
            **more,
        )

    images = step("images", plant_images, inputs={}, placement={"count": count})
    local = step("local", plant_features, inputs={"images": Each(images)}, placement={"photo": photo})
    return images, Extracted(local, count, 300, DIMENSION, 2)


def declare(method, settings=None):
    settings = settings or Planted()
    gallery = planted("gallery", GALLERY, gallery_photo, settings)
    queries = planted("queries", QUERIES, query_photo, settings)
    images, local = Both(gallery[0], queries[0]), Both(gallery[1], queries[1])
    how = SearchSettings(method=method, candidates=GALLERY, neighbours=8)
    index = IndexSettings(gallery_shards_per_index=1)
    candidates = search(images.queries, local, how, index, AsmkSettings())
    checked = VerifySettings(min_inliers=5)
    pairs = verify(candidates, local, images, checked)
    return candidates.step, pairs, rerank(candidates, pairs, checked).step, local.gallery.source


def result(root, steps):
    candidates, pairs, verified, _ = steps
    run([verified], str(root), Where(), Quiet())
    ranked = read_ranking(candidates.dataset(str(root)), 0)
    reranked = verified.dataset(str(root)).read(0)
    inliers = np.zeros((QUERIES, GALLERY), int)
    for shard in range(2):
        rows = pairs.dataset(str(root)).read(shard)
        inliers[column(rows, "query"), column(rows, "photo")] = column(rows, "inliers")
    return ranked, inliers, column(reranked, "photos"), column(reranked, "confident")


@pytest.fixture(params=["votes", "asmk"], scope="module")
def method(request):
    return request.param


@pytest.fixture(scope="module")
def done(method, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        root = tmp_path_factory.mktemp("run")
        return root, result(root, declare(method))


def test_photos_with_few_features_are_never_confident(done):
    """Below one more match than an affine transform is made of there is no evidence."""
    _, (ranked, inliers, reranked, confident) = done
    assert (ranked.photos != 0).all()  # no feature, no candidate
    assert not inliers[:, :4].any()
    assert not inliers[FEW].any()
    assert confident[FEW] == 0
    assert reranked[FEW].tolist() == ranked.photos[FEW].tolist()
    seven = inliers[PLAIN, 7]
    assert seven in (0, 6, 7)  # 0 where it is no candidate


def test_a_query_without_features_has_an_empty_list(done):
    _, (ranked, inliers, reranked, confident) = done
    assert (ranked.photos[NONE] == -1).all()
    assert (reranked[NONE] == -1).all()
    assert confident[NONE] == inliers[NONE].sum() == 0


def test_the_same_photo_is_first_and_agrees_entirely(done):
    _, (ranked, inliers, reranked, confident) = done
    assert ranked.photos[PLAIN, 0] == reranked[PLAIN, 0] == SAME
    assert inliers[PLAIN, SAME] == 300
    assert inliers[PLAIN, LANDMARK] == 250
    assert set(reranked[PLAIN, : confident[PLAIN]]) >= {SAME, LANDMARK, NAN}
    assert OTHER not in reranked[PLAIN, : confident[PLAIN]]


def test_one_texture_is_no_evidence(done):
    _, (_, inliers, reranked, confident) = done
    assert not inliers[:, TEXTURE].any()
    assert not inliers[FLAT].any()
    assert confident[FLAT] == 0
    assert TEXTURE not in reranked[PLAIN, : confident[PLAIN]]


def test_features_without_a_descriptor_change_nothing(done, method, tmp_path):
    """NaN and zero descriptors count as features that the photo does not have."""
    _, (ranked, inliers, _, _) = done
    clean_ranked, clean_inliers, _, _ = result(tmp_path, declare(method, Planted(whole=False)))
    assert inliers[HALF_NAN, NAN] == 150
    for query in (PLAIN, HALF_NAN):
        assert ranked.photos[query, 0] == clean_ranked.photos[query, 0]
        # What is quantised differs, since it is trained on a sample of the rows; who is verified may too.
        both = np.intersect1d(ranked.photos[query], clean_ranked.photos[query])
        np.testing.assert_array_equal(inliers[query, both], clean_inliers[query, both])


@pytest.mark.parametrize("features", [1, 300, 700])
def test_queries_in_blocks_give_what_all_at_once_give(done, method, tmp_path, monkeypatch, features):
    """A block holds at least one query, and no pair's result depends on where blocks end."""
    root, _ = done
    monkeypatch.setattr("lmr.steps.verification.verify.FEATURES_AT_ONCE", features)
    _, pairs, reranked, _ = declare(method)
    run([reranked], str(tmp_path), Where(), Quiet())
    for shard in range(pairs.shards):
        assert pairs.dataset(str(tmp_path)).read(shard).equals(pairs.dataset(str(root)).read(shard))


def test_a_missing_local_shard_is_made_again(done, method, tmp_path, monkeypatch):
    root, (_, before, _, _) = done
    copy = tmp_path / "run"
    shutil.copytree(root, copy)
    steps = declare(method)
    local, pairs = steps[3].dataset(str(copy)), steps[1].dataset(str(copy))
    for lost in (local.shard_url(1), pairs.shard_url(1)):
        Path(lost).unlink()
    listener = Quiet()
    run([steps[2], steps[1]], str(copy), Where(), listener)
    np.testing.assert_array_equal(result(copy, steps)[1], before)
    assert Path(local.shard_url(1)).exists()


def test_a_local_shard_of_another_extractor_is_refused_by_name(done, method, tmp_path):
    root, _ = done
    copy = tmp_path / "run"
    shutil.copytree(root, copy)
    steps = declare(method)
    foreign = declare(method, Planted(extractor="another"))
    run([foreign[3]], str(copy), Where(), Quiet())
    ours, theirs = (s[3].dataset(str(copy)) for s in (steps, foreign))
    shutil.copy(theirs.shard_url(1), ours.shard_url(1))
    shutil.rmtree(Path(steps[1].dataset(str(copy)).url))
    with pytest.raises(RunFailed) as caught:
        run([steps[1]], str(copy), Where(), Quiet())
    said = str(caught.value)
    assert "1 shard(s) could not be made" in said
    assert "shard local_gallery/00001 is not what it should be" in said
    assert f"fingerprint '{theirs.fingerprint}', not '{ours.fingerprint}'" in said
    assert "delete" in said
    assert len(steps[1].dataset(str(copy)).present()) == 1  # the other shard of pairs is finished
