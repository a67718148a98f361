"""PCA whitening: its algebra, few rows, and rows that are nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.features.whiten import Whitening, learn_whitening


def sample(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Return rows of correlated coordinates of very different variance, away from the origin."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((d, d)) * np.geomspace(1, 0.05, d)
    return (rng.standard_normal((n, d)) @ mix.T + 3).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 60), st.integers(3, 90), st.sampled_from([0.0, 0.25, 0.5]), st.integers(0, 99))
def test_coordinates_are_uncorrelated_and_scaled(n: int, d: int, power: float, seed: int) -> None:
    x = sample(n, d, seed)
    rotated = learn_whitening(x, 3, power=power).rotate(x).astype(np.float64)
    np.testing.assert_allclose(rotated.mean(axis=0), 0, atol=1e-2 * rotated.std(axis=0).max())
    variances = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)[:3].astype(np.float64) ** 2 / n
    wanted = np.diag(variances ** (1 - 2 * power))
    np.testing.assert_allclose(rotated.T @ rotated / n, wanted, atol=5e-3 * wanted.max())


def test_rotation_keeps_distances_when_nothing_is_dropped() -> None:
    for n, d in ((50, 8), (9, 40)):
        x = sample(n, d)
        rotated = learn_whitening(x, d, power=0).rotate(x)
        before = np.linalg.norm(x[:, None] - x[None], axis=2)
        np.testing.assert_allclose(
            np.linalg.norm(rotated[:, None] - rotated[None], axis=2), before, atol=1e-2
        )


def test_few_rows_and_many_agree() -> None:
    # The same rows with columns of zeros take the way of few rows; nothing else changes.
    x = sample(30, 20)
    wide = np.hstack([x, np.zeros((30, 50), np.float32)])
    narrow = learn_whitening(x, 10, power=0.25).apply(x)
    np.testing.assert_allclose(
        learn_whitening(wide, 10, power=0.25).apply(wide)
        @ learn_whitening(wide, 10, power=0.25).apply(wide).T,
        narrow @ narrow.T,
        atol=1e-3,
    )


def test_rows_come_out_unit_and_zero_rows_stay_zero() -> None:
    x = sample(40, 16)
    x[[3, 7]] = 0
    white = learn_whitening(x, 8, power=0.5)
    rows = white.apply(x)
    assert rows.shape == (40, 8)
    assert rows.dtype == np.float32
    lengths = np.ones(40)
    lengths[[3, 7]] = 0
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), lengths, rtol=1e-5)
    assert white.apply(np.empty((0, 16), np.float32)).shape == (0, 8)


def test_zero_rows_do_not_change_what_is_learned() -> None:
    x = sample(40, 16)
    with_zeros = np.concatenate([np.zeros((5, 16), np.float32), x])
    np.testing.assert_array_equal(
        learn_whitening(x, 4, power=0.25).projection, learn_whitening(with_zeros, 4, power=0.25).projection
    )


def test_fewer_coordinates_where_rows_span_fewer() -> None:
    assert learn_whitening(sample(6, 50), 256, power=0.25).projection.shape == (50, 5)
    assert learn_whitening(sample(100, 7), 256, power=0.25).projection.shape == (7, 7)
    assert learn_whitening(np.repeat(sample(3, 9), 5, axis=0), 8, power=0.5).projection.shape == (9, 2)


def test_whitening_brings_out_what_few_share() -> None:
    # All rows share one strong direction; the landmark shows in a weak one.
    rng = np.random.default_rng(1)
    landmark = np.repeat(np.eye(10), 6, axis=0)
    x = np.hstack([4 * rng.standard_normal((60, 2)), landmark]).astype(np.float32)

    def precision(power: float) -> float:
        rows = learn_whitening(x, 12, power=power).apply(x)
        similar = rows @ rows.T
        np.fill_diagonal(similar, -2)
        nearest = np.argsort(-similar, axis=1)[:, :5]
        return float(np.mean(nearest // 6 == np.arange(60)[:, None] // 6))

    assert precision(0.5) > precision(0) + 0.3


def test_is_two_plain_arrays() -> None:
    learned = learn_whitening(sample(30, 9), 4, power=0.25)
    again = Whitening(learned.mean.copy(), learned.projection.copy())
    x = sample(5, 9, seed=2)
    np.testing.assert_array_equal(again.apply(x), learned.apply(x))


@pytest.mark.parametrize(
    ("x", "dimension", "power", "message"),
    [
        (sample(9, 4), 0, 0.25, "settings"),
        (sample(9, 4), 2, -0.1, "settings"),
        (sample(9, 4), 2, 1.5, "settings"),
        (np.full((9, 4), np.nan, np.float32), 2, 0.25, "not finite"),
    ],
)
def test_says_what_is_wrong(x: np.ndarray, dimension: int, power: float, message: str) -> None:
    with pytest.raises(LmrError, match=message) as caught:
        learn_whitening(x, dimension, power=power)
    assert caught.value.fix


@pytest.mark.parametrize("rows", [np.ones((9, 4)), np.ones((1, 4)), np.zeros((9, 4)), np.empty((0, 4))])
def test_rows_that_are_all_the_same_span_their_own_direction(rows):
    learned = learn_whitening(rows.astype(np.float32), 2, power=0.25)
    assert learned.projection.shape == (4, 1)
    assert np.isfinite(learned.projection).all()
    assert learned.apply(np.ones((2, 4), np.float32)).tolist() == [[1.0], [1.0]]
    assert learned.apply(np.zeros((1, 4), np.float32)).tolist() == [[0.0]]
