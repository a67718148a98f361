"""What is kept of a run's course, by a clock that tests turn."""

import json
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from lmr.cli.output.web import served
from lmr.errors import StorageError
from lmr.runtime.course import course_of, course_text, read_course, store_course
from lmr.runtime.estimate import StepWork
from lmr.scheduler.courses import MOST_SPANS, CourseKeeper, Courses
from lmr.scheduler.metrics import RunMetrics
from lmr.steps.results.report.run_page import run_page, store_run_page

WORK = {"verify": StepWork(shards=3, work=3, kind="verify", peak_bytes=1000.0)}


def record(root="/run"):
    return SimpleNamespace(
        name="toy-<b>run",
        root=str(root),
        workflow="toy",
        user="ann",
        host="desk",
        since=100.0,
        totals={"verify": 3, "rank": 1},
        groups={"verify": "verify-1", "rank": "rank-1"},
        work=WORK,
    )


class Clock:
    """Seconds since the epoch, as a test says."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def told(tmp_path):
    """A run in which w1 dies at shard 1 three times, and a late shard is begun again."""
    courses, clock = Courses(), Clock()
    courses.open(record(tmp_path), ["tcp://10.0.0.1:1"])
    keeper = courses.keepers["toy-<b>run"]
    keeper.clock = clock
    keeper.workers[0] = keeper.workers[0].__class__(name="10.0.0.1:1", joined=100.0)
    facts = {"rows": 10, "bytes": 500, "peak_bytes": 2000}
    clock.now = 110
    courses.begin(("verify-1", 0), "tcp://10.0.0.1:1")
    courses.begin(("another-run", 0), "tcp://10.0.0.9:1")
    for start in (112, 114, 116):
        clock.now = start
        courses.joined(f"tcp://10.0.0.2:{start}")
        courses.begin(("verify-1", 1), f"tcp://10.0.0.2:{start}")
        clock.now = start + 1
        courses.left(f"tcp://10.0.0.2:{start}")
    clock.now = 120
    courses.end(("verify-1", 0), "tcp://10.0.0.1:1", 10.0, True, facts)
    courses.end(("verify-1", 1), "tcp://10.0.0.1:1", 0.1, False, {})
    courses.begin(("verify-1", 2), "tcp://10.0.0.1:1")
    courses.joined("tcp://10.0.0.3:1")
    clock.now = 130
    courses.copied(("verify-1", 2))
    courses.begin(("verify-1", 2), "tcp://10.0.0.3:1")
    clock.now = 140
    courses.end(("verify-1", 2), "tcp://10.0.0.3:1", 10.0, True, {**facts, "peak_bytes": 700})
    return SimpleNamespace(courses=courses, clock=clock, course=keeper.now("running", ("a note",)))


def test_steps_workers_deaths_and_copies_are_counted(told):
    course = told.course
    verify, rank = course.steps
    assert (verify.made, verify.began, verify.ended, verify.seconds) == (2, 110, 140, 20.0)
    assert (verify.rows, verify.bytes, verify.peak_bytes, verify.stated_bytes) == (20, 1000, 2000, 1000.0)
    assert (verify.begun_again, verify.copies) == (3, 1)
    assert (rank.made, rank.began, rank.stated_bytes) == (0, None, 0.0)
    assert [(w.name, w.left, w.shards, w.lost) for w in course.workers] == [
        ("10.0.0.1:1", None, 1, False),
        ("10.0.0.2:112", 113, 0, True),
        ("10.0.0.2:114", 115, 0, True),
        ("10.0.0.2:116", 117, 0, True),
        ("10.0.0.3:1", None, 1, False),
    ]
    assert course.deaths == 3
    assert course.quarantined == (("verify", 1),)
    assert course.worker_seconds == 40 + 1 + 1 + 1 + 20
    at_work = [span for span in course.spans if span.ended is None]
    assert [(span.worker, span.shard, span.began) for span in at_work] == [(0, 2, 120)]
    assert {span.shard for span in course.spans if not span.made} == {1}


def test_a_course_is_kept_bounded_and_forgotten(told):
    assert course_of(course_text(told.course)) == told.course
    store_course(told.course)
    assert read_course(told.course.root) == told.course
    keeper = CourseKeeper(told.course, {"verify": "verify-1"}, told.clock)
    for shard in range(MOST_SPANS + 10):
        keeper.begin(("verify-1", shard), "tcp://a:1")
        keeper.end(("verify-1", shard), "tcp://a:1", 1.0, True, {})
    assert len(keeper.now().spans) == MOST_SPANS
    told.courses.close("toy-<b>run")
    assert told.courses.of("toy-<b>run", "finished", ()).state == "finished"
    for number in range(9):
        told.courses.open(SimpleNamespace(**{**vars(record()), "name": f"run{number}"}), [])
        told.courses.close(f"run{number}")
    assert told.courses.of("toy-<b>run", "finished", ()) is None


def test_the_page_tells_all_of_it_and_shows_names_as_text(told):
    page = run_page(told.course, left="about 5 s left", usd_per_hour=36.0, refresh_seconds=3)
    for expected in (
        "<h1>toy-&lt;b&gt;run</h1>",
        "toy, submitted by ann on desk",
        "about 5 s left",
        "<title>verify/00001, not made</title>",
        "<li>verify/00001</li>",
        "<li>a note</li>",
        "$0.63",
        "with a shard in hand",
        '2 kB <small class="down">above</small>',
        'http-equiv="refresh" content="3"',
        "0 of 1, waits",
    ):
        assert expected in page, expected
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "refresh" not in run_page(told.course)


def test_the_page_is_kept_beside_the_report_and_a_damaged_record_makes_none(told, tmp_path):
    assert not store_run_page(str(tmp_path / "none"))
    store_course(told.course)
    assert store_run_page(told.course.root)
    assert "verify/00001" in (tmp_path / "report" / "run.html").read_text()
    record = tmp_path / "course.json"
    damaged = json.loads(record.read_text()) | {"deaths": 0}
    record.write_text(json.dumps(damaged))
    with pytest.raises(StorageError, match="does not fit its digest"):
        read_course(told.course.root)
    assert not store_run_page(told.course.root)


def test_prometheus_reads_the_metrics(told):
    prometheus = pytest.importorskip("prometheus_client")
    registry = prometheus.CollectorRegistry()
    registry.register(RunMetrics(lambda: [told.course]))
    labels = {"run": "toy-<b>run", "step": "verify"}
    for name, value in (
        ("lmr_shards_wanted", 3),
        ("lmr_shards_made_total", 2),
        ("lmr_written_bytes_total", 1000),
        ("lmr_begun_again_total", 3),
        ("lmr_speculative_copies_total", 1),
        ("lmr_peak_memory_bytes", 2000),
        ("lmr_stated_memory_bytes", 1000),
    ):
        assert registry.get_sample_value(name, labels) == value, name
    for name, value in (("lmr_workers", 2), ("lmr_worker_deaths_total", 3), ("lmr_quarantined_shards", 1)):
        assert registry.get_sample_value(name, {"run": "toy-<b>run"}) == value, name


def test_the_page_answers_to_this_machine_alone():
    with served(lambda: "<p>here</p>") as url:
        with urlopen(url) as answer:
            assert answer.read() == b"<p>here</p>"
            assert answer.headers["Cache-Control"] == "no-store"
        for wanted, host, code in ((url, "evil.example", 403), (f"{url}../etc/passwd", None, 404)):
            request = Request(wanted, headers={"Host": host} if host else {})
            with pytest.raises(HTTPError) as refused:
                urlopen(request)
            assert refused.value.code == code
            refused.value.close()
