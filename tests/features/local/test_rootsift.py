"""RootSIFT: what it promises of shapes, order, coordinates and descriptors."""

import pickle

import cv2
import numpy as np
import pytest

from lmr.errors import LmrError
from lmr.features.decoding import decode_photo
from lmr.features.local.rootsift import RootSift, store
from lmr.retrieval.descriptors import to_float
from tests.support.shared import shared


def textured(width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
    """Return a photo of smooth random blobs of many sizes."""
    rng = np.random.default_rng(seed)
    photo = np.zeros((height, width, 3))
    for sigma in (2, 4, 8):
        layer = cv2.GaussianBlur(rng.standard_normal((height, width, 3)), (0, 0), sigma)
        photo += layer / layer.std()
    return np.clip(128 + 30 * photo, 0, 255).astype(np.uint8)


def test_shapes_types_and_order() -> None:
    (found,) = RootSift(max_features=150)([textured()])
    assert len(found.score) == 150
    for array, columns in ((found.xy, (2,)), (found.scale, ()), (found.orientation, ()), (found.score, ())):
        assert array.shape == (150, *columns)
        assert array.dtype == np.float32
    assert found.descriptor.shape == (150, 128)
    assert found.descriptor.dtype == RootSift().storage
    keys = list(zip(-found.score, found.xy[:, 1], found.xy[:, 0], strict=True))
    assert keys == sorted(keys)
    assert (found.xy >= -0.5).all()
    assert (found.xy <= [319.5, 239.5]).all()
    assert (found.scale > 0).all()
    assert (np.abs(found.orientation) <= 2 * np.pi + 1e-4).all()


def test_same_photo_same_features() -> None:
    first, second = RootSift()([textured(), textured()])
    for name in ("xy", "scale", "orientation", "score", "descriptor"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_more_features_begin_with_the_fewer() -> None:
    (few,) = RootSift(max_features=40)([textured()])
    (many,) = RootSift(max_features=200)([textured()])
    np.testing.assert_array_equal(few.xy, many.xy[:40])
    np.testing.assert_array_equal(few.descriptor, many.descriptor[:40])


def test_one_orientation_per_place_or_all() -> None:
    (one,) = RootSift(max_features=10_000)([textured()])
    (every,) = RootSift(max_features=10_000, orientations="all")([textured()])
    places = np.column_stack([one.xy, one.score])
    assert len(np.unique(places, axis=0)) == len(one.score)
    all_places = np.column_stack([every.xy, every.score])
    np.testing.assert_array_equal(np.unique(places, axis=0), np.unique(all_places, axis=0))
    assert len(every.score) > len(one.score)


def test_places_and_descriptors_move_with_the_picture() -> None:
    photo = textured(400, 300)
    (whole,) = RootSift(max_features=400)([photo])
    (part,) = RootSift(max_features=400)([np.ascontiguousarray(photo[60:, 96:])])
    similar = to_float(whole.descriptor) @ to_float(part.descriptor).T
    rows, columns = np.nonzero(similar > 0.98)
    assert len(rows) > 100
    moved = whole.xy[rows] - part.xy[columns]
    np.testing.assert_allclose(np.median(moved, axis=0), [96, 60], atol=0.05)


def test_coordinates_and_scales_are_those_of_the_photo_as_given() -> None:
    small = textured(300, 200)
    # Enlarged by 3, then shrunk inside again: three times the place, measured between pixel centres.
    large = cv2.resize(small, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    (a,) = RootSift(max_features=200)([small])
    (b,) = RootSift(max_features=200, max_side_px=300)([large])
    similar = to_float(a.descriptor) @ to_float(b.descriptor).T
    rows, columns = np.nonzero(similar > 0.98)
    assert len(rows) > 60
    shift = b.xy[columns] - (3 * (a.xy[rows] + 0.5) - 0.5)
    np.testing.assert_allclose(np.median(shift, axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.median(b.scale[columns] / a.scale[rows]), 3, rtol=0.01)


def test_a_foggy_photo_has_features() -> None:
    fog = (200 + 0.15 * (textured().astype(float) - 128)).astype(np.uint8)
    (plain,) = RootSift(contrast=0.04)([fog])
    (found,) = RootSift()([fog])
    assert len(plain.score) < 5
    assert len(found.score) > 30


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 1), (7, 7), (0, 0), (240, 320)])
def test_photos_without_features_give_empty_arrays(size: tuple[int, int]) -> None:
    (found,) = RootSift()([np.full((*size, 3), 90, np.uint8)])
    assert found.xy.shape == (0, 2)
    assert found.scale.shape == found.orientation.shape == found.score.shape == (0,)
    assert found.descriptor.shape == (0, 128)
    assert found.descriptor.dtype == np.uint8


def test_stored_rows_are_close_to_the_roots() -> None:
    _, histograms = cv2.SIFT.create(500).detectAndCompute(textured()[:, :, 0], None)
    roots = np.sqrt(histograms / histograms.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(np.linalg.norm(roots, axis=1), 1, rtol=1e-5)
    back = to_float(store(histograms))
    np.testing.assert_allclose((back * roots).sum(axis=1), 1, atol=1e-4)
    assert np.sqrt(np.mean((back @ back.T - roots @ roots.T) ** 2)) < 1e-3


def test_a_histogram_of_zeros_is_stored_as_zeros() -> None:
    np.testing.assert_array_equal(store(np.zeros((1, 128), np.float32)), np.zeros((1, 128)))


@pytest.mark.parametrize(
    "wrong", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3), np.float32)]
)
def test_refuses_what_is_no_photo(wrong: np.ndarray) -> None:
    with pytest.raises(LmrError, match="not a decoded photo"):
        RootSift()([wrong])


@pytest.mark.parametrize(
    "wrong", [{"max_features": 0}, {"max_side_px": 8}, {"contrast": -1.0}, {"orientations": "two"}]
)
def test_refuses_wrong_settings(wrong: dict) -> None:
    with pytest.raises(LmrError):
        RootSift(**wrong)


def test_travels_between_processes() -> None:
    extractor = pickle.loads(pickle.dumps(RootSift(max_features=30)))
    assert len(extractor([textured()])[0].score) == 30


def test_real_photos_have_features() -> None:
    paths = sorted(shared("data/landmarks").glob("gallery/*.jpg"))[::300]
    found = RootSift()([decode_photo(path.read_bytes()) for path in paths])
    assert len(found) == len(paths)
    assert all(len(features.score) >= 50 for features in found)
