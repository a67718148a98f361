"""The calibrated threshold against plain counting, its bound against scipy's exact test, and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from lmr.errors import LmrError
from lmr.evaluation.calibrate import fit_threshold, precision_curve
from lmr.evaluation.pages.curve import curve_svg

PAIRS = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=60)


def curve_of(pairs):
    inliers, right = zip(*pairs, strict=True)
    return precision_curve(np.array(inliers), np.array(right))


@settings(max_examples=50, deadline=None)
@given(pairs=PAIRS)
def test_the_curve_counts_pairs(pairs):
    curve = curve_of(pairs)
    assert len(curve.accepted) == max(n for n, _ in pairs) + 1
    for t in range(len(curve.accepted)):
        passed = [right for n, right in pairs if n > t]
        assert (curve.accepted[t], curve.right[t]) == (len(passed), sum(passed))
        if passed:
            assert curve.precision[t] == pytest.approx(sum(passed) / len(passed))
            exact = binomtest(sum(passed), len(passed), alternative="greater").proportion_ci(0.95, "exact")
            assert curve.precision_low[t] == pytest.approx(exact.low, abs=1e-9)
    assert curve.right_pairs == sum(right for _, right in pairs)


@settings(max_examples=50, deadline=None)
@given(pairs=PAIRS, wanted=st.sampled_from([0.5, 0.9, 1.0]))
def test_the_threshold_is_the_least_from_which_on_all_have_the_precision(pairs, wanted):
    def has_it(t):
        passed = [right for n, right in pairs if n > t]
        return not passed or sum(passed) / len(passed) >= wanted

    last_right = max((n for n, right in pairs if right), default=0)  # thresholds below it pass a right pair
    good = [t for t in range(last_right) if all(has_it(later) for later in range(t, 31))]
    if good:
        assert fit_threshold(curve_of(pairs), wanted) == good[0]
    else:
        with pytest.raises(LmrError, match="no threshold"):
            fit_threshold(curve_of(pairs), wanted)


def test_a_worked_example():
    # Wrong pairs reach 6 inliers; a hundred right ones have 10, one has 3.
    pairs = [(0, False)] * 50 + [(6, False), (3, True)] + [(10, True)] * 100
    curve = curve_of(pairs)
    assert fit_threshold(curve, 0.99) == 0  # 101 of 102
    assert fit_threshold(curve, 0.999) == 6
    assert curve.recall[6] == pytest.approx(100 / 101)
    # Of a hundred right pairs without a wrong one the truth is above 0.97 with 95 % confidence, not 0.99.
    assert fit_threshold(curve, 0.97, sure=True) == 6
    with pytest.raises(
        LmrError, match=r"reaches precision 0\.99 with 0\.95 confidence\ngot: at best .* 0\.97"
    ):
        fit_threshold(curve, 0.99, sure=True)


def test_what_cannot_be_reached_says_what_can():
    noise = [(n, n % 2 == 0) for n in range(20)] + [(40, False)]
    with pytest.raises(LmrError, match=r"got: at best it is 0\.\d+, for more than \d+ inliers") as caught:
        fit_threshold(curve_of(noise), 0.99)
    assert "fix: ask for less" in str(caught.value)
    with pytest.raises(LmrError, match="of which none is right"):
        fit_threshold(curve_of([(5, False)]), 0.5)
    with pytest.raises(LmrError, match="1 right pairs, of which none has an inlier"):
        fit_threshold(curve_of([(0, True), (5, False)]), 0.5)


def test_bad_input_is_refused():
    some = np.array([1, 2]), np.array([True, False])
    with pytest.raises(LmrError, match="no labelled pairs"):
        precision_curve(np.zeros(0, int), np.zeros(0, bool))
    with pytest.raises(LmrError, match="inliers and its label"):
        precision_curve(some[0], some[1][:1])
    with pytest.raises(LmrError, match="a confidence lies"):
        precision_curve(*some, confidence=1.0)
    for precision in (0.0, 1.5):
        with pytest.raises(LmrError, match="a precision lies"):
            fit_threshold(precision_curve(*some), precision)


def test_the_picture_names_the_threshold_and_stays_inside():
    from xml.etree import ElementTree

    curve = curve_of([(n, True) for n in range(5, 400)] + [(n, False) for n in range(8)])
    picture = curve_svg(curve, 7, "xfeat <64>: 403 pairs")
    root = ElementTree.fromstring(picture)
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "xfeat <64>: 403 pairs" in texts
    assert any(text.startswith("more than 7 inliers: precision 1.0000") for text in texts)
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        places = np.array([[float(v) for v in pair.split(",")] for pair in line.get("points").split()])
        assert ((places >= 0) & (places <= [760, 430])).all()
