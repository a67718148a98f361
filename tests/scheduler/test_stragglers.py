"""The rule by which shards are started twice: no cluster needed."""

from hypothesis import given
from hypothesis import strategies as st

from lmr.cluster.speed import measure_speed
from lmr.scheduler.stragglers import SETTLED_SECONDS, worth_starting_again

seconds = st.floats(0.1, 1e4)
speeds = st.floats(0.01, 100)


def test_a_worker_known_to_be_slow_loses_its_shard_at_once():
    # It needs 40 s for what takes 10 s elsewhere, and has begun 2 s ago.
    assert worth_starting_again(2, [10.0], speed_here=0.25, speed_there=1)


def test_an_equal_worker_keeps_its_shard_until_it_is_clearly_late():
    assert not worth_starting_again(9, [10.0] * 5, 1, 1)
    assert not worth_starting_again(14, [10.0] * 5, 1, 1)
    assert worth_starting_again(16, [10.0] * 5, 1, 1)


def test_a_shard_nearly_done_on_a_slow_worker_stays():
    assert not worth_starting_again(35, [10.0], speed_here=0.25, speed_there=1)


def test_an_idle_worker_that_is_slower_does_not_help():
    assert not worth_starting_again(16, [10.0], speed_here=1, speed_there=0.5)


def test_of_a_step_of_which_nothing_is_finished_only_the_speeds_are_known():
    assert not worth_starting_again(1000, [], 1, 1)
    assert not worth_starting_again(2, [], speed_here=0.8, speed_there=1)
    assert worth_starting_again(2, [], speed_here=0.5, speed_there=1)


def test_one_outlier_among_the_finished_does_not_count():
    assert worth_starting_again(16, [10.0, 10.0, 10.0, 500.0], 1, 1)


@given(seconds, st.lists(seconds, max_size=5), speeds, speeds, st.floats(1, 10))
def test_a_faster_idle_worker_is_never_less_worth_it(elapsed, finished, here, there, times):
    if worth_starting_again(elapsed, finished, here, there):
        assert worth_starting_again(elapsed, finished, here, there * times)


@given(
    seconds,
    st.lists(seconds, max_size=5),
    speeds,
    speeds,
    st.sampled_from([0.125, 0.5, 4.0, 16.0]),
)
def test_the_unit_of_speed_does_not_matter(elapsed, finished, here, there, unit):
    once = worth_starting_again(elapsed, finished, here, there)
    scaled = worth_starting_again(elapsed, [f * unit for f in finished], here * unit, there * unit)
    assert once == scaled


def test_young_shards_are_left_alone():
    assert not worth_starting_again(SETTLED_SECONDS / 2, [0.1], 1, 1)
    assert not worth_starting_again(SETTLED_SECONDS / 2, [], speed_here=0.1, speed_there=1)


def test_a_processor_has_a_speed():
    assert 1 < measure_speed() < 1e6
