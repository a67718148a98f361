"""Rates of a small gallery become those of a large one."""

import pytest

from lmr.runtime.growth import GROWTH, SIZES, grown


@pytest.mark.parametrize("name", GROWTH)
def test_from_a_size_that_was_measured_to_a_larger_one_it_is_what_was_measured(name):
    for i, small in enumerate(SIZES):
        for j in range(i, len(SIZES)):
            times = max(1.0, GROWTH[name][j] / GROWTH[name][i])
            assert grown({name: 2.0}, small, SIZES[j])[name] == pytest.approx(2.0 * times)


def test_between_two_sizes_and_above_them_it_is_a_power_of_the_gallery():
    # 10 ** 5.5 photos lie in the middle of the logarithms: the root of the product.
    between = grown({"search": 1.0}, 100_000, round(10**5.5))["search"]
    assert between == pytest.approx((2360.5 / 1064.1) ** 0.5, rel=1e-4)
    above = grown({"search": 1.0}, 1_000_000, 10_000_000)["search"]
    assert above == pytest.approx(2360.5 / 1064.1)


def test_what_is_not_named_stays():
    assert grown({"verify": 2e-3}, 1_000, 1_000_000) == {"verify": 2e-3}


@pytest.mark.parametrize(
    ("measured", "photos"), [(0, 1_000_000), (1000, 10), (1000, 1000), (329, 10_000), (1, 200)]
)
def test_nothing_shrinks_and_nothing_grows_from_an_unknown_gallery(measured, photos):
    assert grown({"neighbours": 1.0}, measured, photos) == {"neighbours": 1.0}
