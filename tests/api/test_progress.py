"""Progress in a log and in a terminal."""

import io
import re
import time

from rich.console import Console

from lmr.api.progress import ProgressBars, ProgressLines, progress_on
from lmr.runtime.estimate import Left, Measured, Progress

TOTALS = {"extract": 4, "search": 2}


def test_a_log_gets_lines_and_a_terminal_bars():
    assert isinstance(progress_on(Console(file=io.StringIO())), ProgressLines)
    assert isinstance(progress_on(Console(file=io.StringIO(), force_terminal=True)), ProgressBars)


def test_a_log_hears_of_each_finished_step_and_of_the_time_that_is_left():
    text = io.StringIO()
    with ProgressLines(Console(file=text, width=40), every_seconds=0.05) as lines:
        lines.planned(TOTALS)
        lines.connected("http://127.0.0.1:8787/status")
        at_work = {"extract": Measured(made=1, seconds=2.0, running=1, elapsed_seconds=3.0)}
        lines.progressed(Progress(counts={"extract": 1, "search": 0}, measured=at_work, left=Left(130.0)))
        # Nothing happens for a while: a long shard.
        deadline = time.monotonic() + 20
        while text.getvalue().count("minute") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        done = {"extract": Measured(made=4, seconds=9.0, elapsed_seconds=12.0)}
        lines.progressed(Progress(counts={"extract": 4, "search": 0}, measured=done, left=Left(1.0)))
        lines.progressed(Progress(counts={"extract": 4, "search": 0}, measured=done, left=Left(1.0)))
    said = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in text.getvalue().splitlines()]
    assert said[0] == "6 shards to make, in 2 steps"
    assert said[1] == "dashboard  http://127.0.0.1:8787/status"
    assert re.fullmatch(
        r"1 of 6 shards, 0\.0 a minute, about 2 min left; at work: extract 1 of 4", said[2]
    ), said
    assert said.count("extract: done, 4 shards in 12 s") == 1
    assert not any("search: done" in line for line in said)


def test_bars_show_what_waits_what_is_at_work_and_the_time_that_is_left():
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True, color_system=None)
    with ProgressBars(console) as bars:
        bars.planned(TOTALS)
        bars.connected(None)
        at_work = {"extract": Measured(running=1, elapsed_seconds=7.0)}
        bars.progressed(
            Progress(counts={"extract": 0, "search": 0}, measured=at_work, left=Left(0.0, ("extract",)))
        )
        console.file.truncate(0)
        bars.progressed(Progress(counts={"extract": 2, "search": 0}, measured=at_work, left=Left(250.0)))
        bars.progress.refresh()
        # One that waits neither moves nor has a clock.
        by_step = {task.description: task for task in bars.progress.tasks}
        assert by_step["search"].fields["clock"] == "waits"
        assert by_step["extract"].fields["clock"] == "7 s"
    rows = [
        line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue()).splitlines() if line.strip()
    ]
    assert any(re.search(r"extract .* 2/4 7 s", row) for row in rows), rows
    assert any(re.search(r"search .* 0/2 waits", row) for row in rows), rows
    assert any(re.search(r"all .* 2/6 about 4 min left", row) for row in rows), rows
