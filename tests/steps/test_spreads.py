"""How inliers and right photos are spread over final lists, counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from lmr.steps.ranking import Ranking
from lmr.steps.results.matches.lists import QueryLists
from lmr.steps.results.report.report import store_report
from lmr.steps.results.report.spreads import RECALL_AT, Spreads
from tests.support.small_run import small_run


def lists(queries, photos, inliers=None):
    photos = np.array(photos, np.int32)
    ranking = Ranking(np.array(queries, np.int32), photos, np.ones(photos.shape, np.float32))
    found = None if inliers is None else np.array(inliers, np.int32)
    return QueryLists(ranking.queries, {"search": ranking}, found)


def test_shares_of_right_photos_are_means_over_queries_that_have_any():
    spreads = Spreads(["a", "b", "c"], {"a": {3, 7}, "b": {9}, "c": set()})
    spreads.add(lists([0], [[7, 1, 2, 4, 5, 3, -1]]))
    spreads.add(lists([1, 2], [[8, 9, 1, -1, -1, -1, -1], [9, -1, -1, -1, -1, -1, -1]]))
    assert RECALL_AT[:3] == (1, 5, 10)
    shares = dict(spreads.recall)
    assert shares["first 1"] == pytest.approx((0.5 + 0) / 2)
    assert shares["first 5"] == pytest.approx((0.5 + 1) / 2)
    assert shares["first 10"] == shares["first 100"] == pytest.approx(1.0)
    assert spreads.inliers == []


def test_photos_of_the_lists_are_counted_by_their_inliers():
    spreads = Spreads(["a"], None)
    spreads.add(lists([0], [[1, 2, 3, 4, 5, 6, -1, -1]], [[0, 5, 6, 20, 51, 900, 70, 0]]))
    expected = {"none": 1, "1 to 5": 1, "6 to 10": 1, "11 to 20": 1, "21 to 50": 0, "more than 50": 2}
    assert dict(spreads.inliers) == expected
    assert spreads.recall == []


def test_the_report_shows_them_and_settings_of_networks_by_name(tmp_path):
    run = small_run(tmp_path / "run")
    run.settings["describe"] = {"gem": {"architecture": "mobilenet_v2", "sizes_px": [640, 320]}}
    page = Path(store_report(run)).read_text()
    assert "Inliers of the photos in the lists" in page
    assert "Right photos among the first" not in page  # no solution
    assert "<dt>gem.sizes_px</dt><dd>640, 320" in page
    assert "{&#39;" not in page
