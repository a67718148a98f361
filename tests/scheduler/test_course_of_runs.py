"""The course of a run on a real cluster: live for browser and Prometheus, kept in the folder afterwards."""

import re
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from lmr.cluster.client import Where, open_client
from lmr.runtime import finish
from lmr.runtime.course import read_course
from lmr.scheduler import runs
from lmr.scheduler.run import submit
from tests.support.clusters import ROOT, cluster
from tests.support.faults import sleepers

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def shown_by_watch(made, name):
    """Follow a run with `lmr watch --web`; return its page, and what was printed to the end."""
    command = [sys.executable, "-u", "-m", "lmr", "watch", name, "--web", "--worker-price", "3600"]
    with subprocess.Popen(
        [*command, "--scheduler", made.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    ) as watching:
        printed = ""
        while "page " not in printed:
            line = watching.stdout.readline()
            assert line, printed
            printed += line
        url = re.search(r"page\s+(\S+)", printed)[1]
        with urlopen(url) as answer:
            page = answer.read().decode()
        printed += watching.stdout.read()
    return page, printed


def shorten():
    """Let any run be long enough for Dask's report."""
    finish.PERFORMANCE_SECONDS = 0.0


def test_a_run_is_shown_while_it_goes_on_and_afterwards(tmp_path):
    with cluster(tmp_path / "logs", workers=1) as made, open_client(Where(scheduler=made.address)) as client:
        client.run(shorten)
        step = sleepers(tmp_path, 40, seconds=0.5)
        name = submit([step], str(tmp_path / "run"), Where(scheduler=made.address), workflow="toy").name
        dashboard = client.dashboard_link
        deadline = time.monotonic() + 120
        while not (course := runs.course_of_run(client, name)).steps[0].made:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert course.state == "running"
        with urlopen(dashboard.replace("/status", "/metrics")) as answer:
            metrics = answer.read().decode()
        page, printed = shown_by_watch(made, name)
        ended = runs.course_of_run(client, name)
    labels = f'{{run="{name}",step="sleep"}}'
    assert f"lmr_shards_wanted{labels} 40.0" in metrics
    assert float(re.search(rf"lmr_shards_made_total{re.escape(labels)} (\S+)", metrics)[1]) >= 1
    assert f'lmr_workers{{run="{name}"}} 1.0' in metrics
    assert "<dd>running" in page
    assert 'http-equiv="refresh"' in page
    assert dashboard in page
    assert re.search(r'<small class="quiet">\$\d+\.\d\d</small>', page)
    assert f"{name} took" in printed
    assert ended.state == "finished"
    kept = read_course(str(tmp_path / "run"))
    assert kept.state == "finished"
    # `lmr watch` has left the price on the page that stays.
    assert kept.usd_per_hour == 3600
    assert "$" in (tmp_path / "run" / "report" / "run.html").read_text()
    (found,) = kept.steps
    assert (found.made, found.shards, found.rows) == (40, 40, 40)
    stored = sum(file.stat().st_size for file in (tmp_path / "run").rglob("*.parquet"))
    assert found.bytes == stored
    assert found.peak_bytes > 1e6
    assert found.stated_bytes == step.cost.peak_bytes
    assert sorted(span.shard for span in kept.spans) == list(range(40))
    (worker,) = kept.workers
    assert (worker.shards, worker.left, worker.lost) == (40, None, False)
    performance = (tmp_path / "run" / "report" / finish.PERFORMANCE).read_text()
    assert "Dask Performance Report" in performance
    assert "cdn.bokeh" not in performance
