"""Reliability: the Brier score and its bins, against plain Python; the files that show them."""

import numpy as np
import pytest

from lmr.errors import LmrError
from lmr.evaluation.reliability import reliability, reliability_csv, reliability_svg


def test_scores_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    said = rng.random(500)
    right = rng.random(500) < said
    found = reliability(said, right, bins=4)
    assert found.brier == pytest.approx(sum((p - r) ** 2 for p, r in zip(said, right, strict=True)) / 500)
    assert found.base_brier == pytest.approx(right.mean() * (1 - right.mean()))
    assert found.skill == pytest.approx(1 - found.brier / found.base_brier)
    mine = (said >= 0.25) & (said < 0.5)
    assert (found.pairs[1], found.right[1]) == (mine.sum(), right[mine].sum())
    assert found.said[1] == pytest.approx(said[mine].mean())
    assert found.seen[1] == pytest.approx(right[mine].mean())
    assert found.calibration_error < 0.05  # labels follow what was said
    assert reliability(said**3, right).calibration_error > 0.15  # and here they do not


def test_certainty_and_empty_bins_have_their_place():
    found = reliability(np.array([0.0, 1.0, 1.0]), np.array([False, True, True]))
    assert found.brier == 0
    assert found.pairs.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert np.isnan(found.seen[1])
    assert reliability_csv(found).splitlines()[1:3] == ["0,0.1,1,0,0.000000,0.000000", "0.1,0.2,0,0,,"]


def test_what_is_no_probability_is_refused():
    with pytest.raises(LmrError, match="between 0 and 1"):
        reliability(np.array([1.5]), np.array([True]))
    with pytest.raises(LmrError, match="its probability and its label"):
        reliability(np.array([0.5, 0.5]), np.array([True]))


def test_the_picture_shows_a_dot_for_each_bin_and_no_markup_of_names():
    found = reliability(np.array([0.05, 0.95]), np.array([False, True]))
    picture = reliability_svg(found, "<script>")
    assert picture.count("<circle") == 2
    assert "<script>" not in picture
