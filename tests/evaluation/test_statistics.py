"""Intervals and comparisons against what is known of the mean."""

import doctest

import numpy as np
import pytest

from lmr.errors import LmrError
from lmr.evaluation import statistics
from lmr.evaluation.statistics import compare, interval, mean_of


def test_worked_examples():
    result = doctest.testmod(statistics, extraglobs={"np": np})
    assert result.attempted >= 2
    assert result.failed == 0


def test_the_standard_error_is_that_of_a_mean():
    values = np.random.default_rng(1).random(400)
    found = interval(mean_of(values), 400)
    expected = values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(expected, rel=0.1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * expected, rel=0.1)
    assert interval(mean_of(values), 400) == found
    narrow = interval(mean_of(values), 400, confidence=0.5)
    assert found.low < narrow.low < found.value < narrow.high < found.high


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(60):
        found = interval(mean_of(rng.random(50)), 50, seed=seed)
        held += found.low <= 0.5 <= found.high
    assert 50 <= held <= 60  # 95 % of 60 is 57


def test_equal_values_have_no_spread_and_no_query_is_an_error():
    found = interval(mean_of(np.full(7, 0.5)), 7)
    assert (found.standard_error, found.low, found.high) == (0, 0.5, 0.5)
    with pytest.raises(LmrError, match="an interval needs queries"):
        interval(mean_of(np.empty(0)), 0)


def test_pairs_show_what_two_separate_intervals_hide():
    rng = np.random.default_rng(3)
    second = rng.random(200) * 0.9
    first = second + 0.02 + 0.01 * rng.standard_normal(200)
    found = compare(first, second)
    apart = interval(mean_of(first), 200), interval(mean_of(second), 200)
    assert apart[0].low < apart[1].high
    assert found.difference.low > 0
    assert found.p_value < 0.001
    back = compare(second, first)
    assert back.difference.value == pytest.approx(-found.difference.value)
    assert back.p_value == found.p_value
    assert (back.lost, back.won) == (found.won, found.lost)


def test_chance_alone_is_seldom_called_a_difference():
    rng = np.random.default_rng(4)
    small = sum(compare(rng.random(30), rng.random(30)).p_value < 0.05 for _ in range(60))
    assert small <= 8  # 5 % of 60 is 3
    assert compare(np.array([0.5, 1.0]), np.array([0.5, 1.0])).p_value == 1.0
