"""What the command line shows of a plan."""

import io
from dataclasses import replace

from rich.console import Console

from lmr.cli.output.tables import plan_table
from lmr.runtime.graph import Plan, StepPlan
from tests.support.costs import cost
from tests.support.toys import workflow


def test_the_plan_says_what_a_task_will_hold(tmp_path):
    first, second, _ = workflow(tmp_path)
    known = replace(second, cost=cost(task_bytes=1.1e9))
    text = io.StringIO()
    Console(file=text, width=120).print(
        plan_table(Plan(root="run", steps=(StepPlan(first, (0, 1), 2), StepPlan(known, (0,), 3))))
    )
    rows = {
        line.split("│")[1].strip(): line.split("│") for line in text.getvalue().splitlines() if "│" in line
    }
    assert rows["scaled"][6].strip() == "1.8 GB"
    assert rows["numbers"][6].strip() == "651.0 MB"


def test_expected_memory_is_no_part_of_the_fingerprint(tmp_path):
    step = workflow(tmp_path)[1]
    assert replace(step, cost=cost(task_bytes=1e9)).fingerprint == step.fingerprint
