"""Rates of a small gallery become those of a large one."""

import pytest

from lmr.runtime.growth import GROWTH, grown


def test_what_grows_does_so_by_its_power_and_the_rest_stays():
    found = grown({"search": 1e-3, "verify": 2e-3}, 1_000, 1_000_000)
    assert found["search"] == pytest.approx(1e-3 * 1000 ** GROWTH["search"])
    assert found["verify"] == 2e-3


def test_rates_of_the_two_minute_form_become_those_of_the_rehearsal():
    # Microseconds for a unit, as docs/results/rehearsal.md has them.
    measured = {"index": 18.3, "search": 252.0, "link_regions": 202.1, "diffuse": 20_100.0}
    rehearsed = {"index": 81.4, "search": 2_264.0, "link_regions": 4_097.0, "diffuse": 106_939.0}
    assert grown(measured, 329, 1_000_000) == pytest.approx(rehearsed, rel=0.1)


@pytest.mark.parametrize(("measured", "photos"), [(0, 1_000_000), (1000, 10), (1000, 1000)])
def test_nothing_shrinks_and_nothing_grows_from_an_unknown_gallery(measured, photos):
    assert grown({"search": 1.0}, measured, photos) == {"search": 1.0}
