"""A run in one process keeps its course as one on a cluster does: its page, and the price on it."""

import re
import shutil

import pytest

from lmr.errors import LmrError
from lmr.runtime.course import RECORD, read_course
from tests.support.world import lmr as command


def test_the_page_of_the_course_is_kept_with_its_price(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished.root, root)
    course = read_course(str(root))
    assert course.state == "finished"
    assert course.workflow == "retrieval"
    (worker,) = course.workers
    assert worker.shards == sum(step.made for step in course.steps) == len(course.spans)
    assert all(step.made == step.shards for step in course.steps)
    assert {step.name for step in course.steps} >= {"ingest", "verify", "diffuse", "submit"}
    page = root / "report" / "run.html"
    assert "retrieval" in page.read_text()
    assert "$" not in re.sub(r"<style>.*?</style>", "", page.read_text(), flags=re.DOTALL)
    assert 'href="run.html"' in (root / "report" / "index.html").read_text()

    # The folder has moved; what is written anew is written here.
    command("report", str(root), "--worker-price", "3600")
    assert re.search(r'<small class="quiet">\$\d+\.\d\d</small>', page.read_text())
    assert read_course(str(root)).usd_per_hour == 3600
    assert read_course(finished.root).usd_per_hour is None
    (root / RECORD).unlink()
    with pytest.raises(LmrError, match="course of this run was not kept"):
        command("report", str(root), "--worker-price", "2")
