"""Probabilities of pairs: fitted ones come back, signals never lower them, and no query judges itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmr.errors import LmrError, SettingsError
from lmr.retrieval.probability import (
    SIGNALS,
    PairModel,
    fit_pairs,
    held_out,
    signals_of,
)
from lmr.retrieval.probable_names import by_probability, combined

TRUE = PairModel(SIGNALS, (1.5, 0.8, 6.0), -6.0, noise_inliers=7)


def drawn(count, seed=0):
    """Return signals of pairs and labels that follow `TRUE`."""
    rng = np.random.default_rng(seed)
    inliers = np.where(rng.random(count) < 0.3, rng.integers(8, 120, count), rng.integers(0, 8, count))
    signals = signals_of(inliers, rng.exponential(3, count), rng.random(count))
    return signals, rng.random(count) < TRUE.probability(signals)


def test_a_known_law_is_found_again():
    signals, right = drawn(8_000)
    model = fit_pairs(signals, right)
    assert model.noise_inliers == TRUE.noise_inliers
    np.testing.assert_allclose(model.weights, TRUE.weights, rtol=0.15)
    fresh, _ = drawn(500, seed=1)
    np.testing.assert_allclose(model.probability(fresh), TRUE.probability(fresh), atol=0.03)


def test_isotonic_mends_a_curve_that_is_not_logistic():
    signals, _ = drawn(5_000)
    odds = TRUE.log_odds(signals)
    truth = np.where(odds > 0, 0.6, 0.1)
    right = np.random.default_rng(2).random(len(truth)) < truth
    for method, most in (("logistic", 1.0), ("isotonic", 0.03)):
        gap = np.abs(fit_pairs(signals, right, method=method).probability(signals) - truth).mean()
        assert gap < most
        if method == "logistic":
            assert gap > 0.03  # the line cannot say it: else the test shows nothing


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_no_signal_lowers_a_probability(method):
    """Also where the labels say so: here fewer votes are righter."""
    signals, _ = drawn(1_000)
    right = (signals[:, 1] < 1) ^ (np.random.default_rng(3).random(1_000) < 0.1)
    model = fit_pairs(signals, right, method=method)
    base = model.probability(signals)
    for column, step in enumerate((5.0, 1.0, 0.1)):
        more = signals.copy()
        more[:, column] += step
        assert (model.probability(more) >= base - 1e-12).all()
    assert model.weights[1] == 0


def test_who_is_judged_was_not_fitted_on():
    """One group's labels are turned round: nobody else does so, and its own probabilities do not follow."""
    signals, right = drawn(600)
    groups = np.arange(600) // 100
    before = held_out(signals, right, groups)
    turned = right.copy()
    turned[:100] = ~right[:100]
    after = held_out(signals, turned, groups)
    np.testing.assert_array_equal(after[:100], before[:100])
    assert (after[100:] != before[100:]).any()


def test_certain_pairs_have_finite_weights():
    signals = signals_of(np.array([0, 0, 90, 90]), np.zeros(4), np.array([0.1, 0.2, 0.8, 0.9]))
    right = np.array([False, False, True, True])
    for method in ("logistic", "isotonic"):
        said = fit_pairs(signals, right, method=method).probability(signals)
        assert np.isfinite(said).all()
        assert (said[right] > said[~right].max()).all()


def test_what_cannot_be_fitted_is_refused():
    signals, right = drawn(50)
    with pytest.raises(LmrError, match="right pairs and wrong ones"):
        fit_pairs(signals, np.zeros(50, bool))
    with pytest.raises(LmrError, match="not a number"):
        fit_pairs(np.where(np.arange(50)[:, None] == 3, np.nan, signals), right)
    with pytest.raises(LmrError, match="its three signals and its label"):
        fit_pairs(signals[:, :2], right)
    with pytest.raises(LmrError, match="too few landmarks"):
        held_out(signals, right, np.zeros(50, int))
    with pytest.raises(SettingsError, match="no such method"):
        fit_pairs(signals, right, method="guess")
    with pytest.raises(SettingsError, match="no such signals"):
        fit_pairs(signals, right, names=("luck",))
    with pytest.raises(SettingsError, match="no such way to combine"):
        combined(np.zeros(1, int), np.zeros(1, int), np.ones(1), "sum")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0, 1)), max_size=30))
def test_combinations_are_what_plain_python_says(pairs):
    queries, landmarks = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    said = np.array([pair[2] for pair in pairs], np.float64)
    of: dict[tuple[int, int], list[float]] = {}
    for query, landmark, one in pairs:
        of.setdefault((query, landmark), []).append(one)
    wanted = {
        "best": {cell: max(some) for cell, some in of.items()},
        "mean": {cell: sum(some) / len(some) for cell, some in of.items()},
        "noisy_or": {cell: 1 - np.prod([1 - one for one in some]) for cell, some in of.items()},
    }
    for how, right in wanted.items():
        cells, found = combined(queries, landmarks, said, how)
        assert [tuple(cell) for cell in cells.tolist()] == sorted(right)
        np.testing.assert_allclose(found, [right[cell] for cell in sorted(right)], atol=1e-9)


def test_names_stand_for_their_photos():
    photos = np.array([[0, 1, 2, 3], [3, -1, -1, -1], [-1, -1, -1, -1]])
    said = np.array([[0.9, 0.6, 0.7, 0.2], [0.4, 0, 0, 0], [0, 0, 0, 0]])
    found = by_probability(photos, said, np.array([-1, 5, 5, 4]))
    assert found.landmarks.tolist() == [5, 4, -1]  # the surest photo shows no landmark
    assert found.confidence.tolist() == [0.7, 0.4, -np.inf]
    assert found.support.tolist() == [2, 0, 0]
    assert found.photos.tolist() == [2, 3, -1]
