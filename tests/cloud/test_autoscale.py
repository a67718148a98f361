"""How many machines a deadline asks for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmr.cloud.autoscale import Bounds, Work, decide, fit_price

HOUR = 3600.0


def size(pending=96_000, seconds=96_000 * 30.0, *, hours=6.0, boot=300.0, **bounds):
    fields = {"current": 0, "smallest": 0, "largest": 40, "slots": 96.0} | bounds
    work = Work(pending=pending, seconds=seconds)
    return decide(work, Bounds(**fields), seconds_left=hours * HOUR, boot_seconds=boot)


def test_pending_times_duration_over_deadline():
    # 96,000 tasks of 30 s on 96 slots: 8.33 machine-hours, and six hours less five minutes to do them in.
    target = size()
    assert target.machines == 2
    assert target.hours == pytest.approx(5 / 60 + (96_000 * 30 / 96 / 2) / 3600)
    assert size(hours=1).machines == math.ceil(8.3334 / (55 / 60))
    assert size(hours=8.34, current=1).machines == 1


def test_machines_that_are_there_count_from_now_on():
    # One machine does 8.33 machine-hours in 8.4 hours; a new one needs its five minutes first.
    assert size(hours=8.4, current=1).machines == 1
    assert size(hours=8.4, current=0).machines == 2


def test_nothing_pending_ends_the_group():
    assert size(pending=0, seconds=0, current=5).machines == 0
    assert size(pending=0, seconds=0, current=5, smallest=1).machines == 1


def test_it_shrinks_when_there_is_time():
    assert size(hours=24, current=10).machines == 1


def test_without_a_measurement_it_stays_but_never_at_none():
    assert size(seconds=0, current=3).machines == 3
    target = size(seconds=0)
    assert (target.machines, target.hours) == (1, math.inf)
    assert "measured" in target.reason


def test_a_deadline_that_cannot_be_met_is_said():
    late = size(hours=0.5, largest=5)
    assert late.machines == 5
    assert late.hours > 0.5
    assert late.reason == "late: its largest size"
    few = size(pending=10, seconds=10 * HOUR, hours=0.5)
    assert few.machines == 1
    assert few.reason == "late: more machines than tasks would not help"
    assert size(hours=-1).machines == 40


@given(
    pending=st.integers(1, 10**6),
    task_seconds=st.floats(0.01, 600),
    hours=st.floats(0.01, 48),
    current=st.integers(0, 40),
    slots=st.sampled_from([1.0, 4.0, 96.0]),
)
def test_what_it_calls_in_time_is_in_time(pending, task_seconds, hours, current, slots):
    work = Work(pending=pending, seconds=pending * task_seconds)
    bounds = Bounds(current=current, smallest=0, largest=40, slots=slots)
    target = decide(work, bounds, seconds_left=hours * HOUR, boot_seconds=300)
    assert 1 <= target.machines <= 40
    assert target.machines <= math.ceil(pending / slots)
    if target.reason == "in time":
        assert target.hours <= hours + 1e-6
        # What the machines can do until then is enough.
        there, new = min(current, target.machines), max(target.machines - current, 0)
        can = slots * (there * hours * HOUR + new * max(hours * HOUR - 300, 0))
        assert can >= work.seconds * (1 - 1e-6)


def test_one_machine_less_would_be_late():
    target = size(hours=1)
    work, bounds = Work(pending=96_000, seconds=96_000 * 30.0), target.machines - 1
    fewer = decide(
        work, Bounds(current=0, smallest=0, largest=bounds, slots=96.0), seconds_left=HOUR, boot_seconds=300
    )
    assert fewer.hours > 1


def test_a_limit_cuts_what_grows_most():
    each = {"cpu": 4.6, "gpu": 1.6}
    assert fit_price({"cpu": 10, "gpu": 2}, {"cpu": 0, "gpu": 0}, each, 100) == {"cpu": 10, "gpu": 2}
    assert fit_price({"cpu": 10, "gpu": 2}, {"cpu": 0, "gpu": 2}, each, 40) == {"cpu": 8, "gpu": 2}
    assert fit_price({"cpu": 10, "gpu": 2}, {"cpu": 0, "gpu": 0}, each, -1) == {"cpu": 0, "gpu": 0}


@given(cpu=st.integers(0, 40), gpu=st.integers(0, 8), now_cpu=st.integers(0, 40), most=st.floats(0, 200))
def test_a_cut_fleet_is_never_too_dear_and_never_cut_too_far(cpu, gpu, now_cpu, most):
    each = {"cpu": 4.6, "gpu": 1.6}
    fitted = fit_price({"cpu": cpu, "gpu": gpu}, {"cpu": now_cpu, "gpu": 0}, each, most)
    cost = sum(each[name] * fitted[name] for name in each)
    assert cost <= most + 1e-6
    assert fitted["cpu"] <= cpu
    assert fitted["gpu"] <= gpu
    if fitted != {"cpu": cpu, "gpu": gpu}:
        assert cost + max(each.values()) > most
