"""Rates of a small gallery become those of a large one."""

import pytest

from lmr.runtime.growth import GROWTH, grown


def test_what_grows_does_so_by_its_power_and_the_rest_stays():
    found = grown({"search": 1e-3, "verify": 2e-3}, 1_000, 1_000_000)
    assert found["search"] == pytest.approx(1e-3 * 1000 ** GROWTH["search"])
    assert found["verify"] == 2e-3
    # From 0.16 ms at a million features to 2.3 ms at a billion.
    assert found["search"] / 1e-3 == pytest.approx(2.26 / 0.162, rel=0.05)


@pytest.mark.parametrize(("measured", "photos"), [(0, 1_000_000), (1000, 10), (1000, 1000)])
def test_nothing_shrinks_and_nothing_grows_from_an_unknown_gallery(measured, photos):
    assert grown({"search": 1.0}, measured, photos) == {"search": 1.0}
