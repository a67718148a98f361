"""Descriptors kept in bytes give what their unit rows give, to the last bit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.verification import _whole_numbers as whole_numbers
from lmr.retrieval.verification.features import Features
from lmr.retrieval.verification.match import byte_lengths
from lmr.retrieval.verification.verify import DELF_RECIPE, Recipe, verify_pairs

RECIPES = [DELF_RECIPE, Recipe(), Recipe(max_ratio=None), Recipe(max_distance=0.5, max_ratio=1.0)]


def photos(kind: Any, sizes: list[int], d: int, noise: float, seed: int) -> Features:
    """Photos of features that repeat, some a level or so apart, some of them zero or without a place."""
    rng = np.random.default_rng(seed)
    lo, hi, n = np.iinfo(kind).min, np.iinfo(kind).max, sum(sizes)
    rows = np.random.default_rng(7).integers(lo, hi + 1, (15, d))[rng.integers(0, 15, n)]
    stored = np.clip(rows + np.rint(noise * rng.standard_normal((n, d))), lo, hi).astype(kind)
    stored[rng.random(n) < 0.05] = 0
    xy = rng.uniform(0, 300, (n, 2)).astype(np.float32)
    xy[rng.random(n) < 0.05, 0] = np.nan
    return Features(xy=xy, descriptors=stored, offsets=np.cumsum([0, *sizes]))


def same(kept: tuple[Features, Features], recipe: Recipe) -> None:
    """Verify all pairs of some photos, as they are kept and as unit rows, and compare."""
    pairs = np.argwhere(np.ones((len(kept[0].offsets) - 1, len(kept[1].offsets) - 1)))
    as_floats = [replace(side, descriptors=to_float(side.descriptors)) for side in kept]
    found, wanted = verify_pairs(*kept, pairs, recipe), verify_pairs(*as_floats, pairs, recipe)
    for name in ("inliers", "tentative", "transform", "matches", "offsets"):
        assert getattr(found, name).tobytes() == getattr(wanted, name).tobytes(), name


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from([np.uint8, np.int8]),
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=3),
    d=st.sampled_from([1, 3, 40, 128]),
    noise=st.sampled_from([0.0, 0.6, 8.0]),
    recipe=st.sampled_from(RECIPES),
    seed=st.integers(0, 1000),
)
def test_bytes_match_as_their_unit_rows_do(
    kind: Any, sizes: list[int], d: int, noise: float, recipe: Recipe, seed: int
) -> None:
    same((photos(kind, sizes, d, noise, seed), photos(kind, sizes[::-1], d, noise, seed + 1)), recipe)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_a_processor_without_products_of_bytes_finds_the_same(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_numbers, "supported", lambda: False)
    same((photos(kind, [40, 30], 40, 0.6, 1), photos(kind, [35], 40, 0.6, 2)), Recipe())


def test_bytes_of_two_kinds_and_bytes_beside_floats_are_compared_as_floats() -> None:
    one, other = photos(np.uint8, [30], 8, 0.6, 1), photos(np.int8, [30], 8, 0.6, 2)
    same((one, other), Recipe())
    same((one, replace(other, descriptors=to_float(other.descriptors))), DELF_RECIPE)
    with pytest.raises(LmrError, match="do not fit"):
        verify_pairs(one, photos(np.uint8, [3], 9, 0, 0), np.array([[0, 0]]))


def in_whole_numbers(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.int32]:
    out = np.zeros((len(rows), len(columns)), np.int32)
    whole_numbers.multiply(whole_numbers.rows(rows), whole_numbers.columns(columns), out, rows.dtype)
    return out


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("d", [1, 40, 64, 128, 1000])
def test_products_of_bytes_are_exact(kind: Any, d: int) -> None:
    if not whole_numbers.supported():
        pytest.skip("this processor multiplies bytes with 16 bits for a sum of two products")
    about, rng = np.iinfo(kind), np.random.default_rng(d)
    ends = np.array([about.min, about.max], kind)[rng.integers(0, 2, (9, d))]
    rows = np.concatenate([ends, rng.integers(about.min, about.max + 1, (23, d)).astype(kind)])
    wide = rows.astype(np.int64)
    np.testing.assert_array_equal(in_whole_numbers(rows, rows[::-1]), wide @ wide[::-1].T)
    assert in_whole_numbers(rows, rows[:0]).shape == (32, 0)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_lengths_are_those_of_the_unit_rows(kind: Any) -> None:
    rows = np.random.default_rng(0).integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, (200, 128))
    stored = rows.astype(kind)
    stored[3] = 0
    wanted = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1)).astype(np.float32)
    wanted[3] = 0
    np.testing.assert_array_equal(byte_lengths(stored), wanted)
    assert to_float(stored)[5].tobytes() == (stored[5].astype(np.float32) / wanted[5]).tobytes()


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("shape", [(0, 40), (1, 40), (3, 128), (257, 33)])
def test_turned_descriptors_are_the_columns_of_those_stored(kind, shape):
    numbers = np.iinfo(kind)
    stored = np.random.default_rng(0).integers(numbers.min, numbers.max + 1, shape).astype(kind)
    turned = whole_numbers.columns(stored)
    moved = 128 if kind == np.uint8 else 0
    np.testing.assert_array_equal(turned, (stored.astype(np.int32) - moved).T)
    assert (turned.dtype, turned.flags.c_contiguous) == (np.dtype(np.int8), True)
