"""A few rounds of chaos; the many are `benchmarks/chaos.py`."""

import pytest

from tests.support.chaos import chaos, expected_result, play
from tests.support.network import why_not

pytestmark = [pytest.mark.hosts, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_every_round_ends_with_the_undisturbed_result_or_a_message_and_a_resume_that_does(tmp_path):
    expected = expected_result(tmp_path / "alone")
    with chaos(tmp_path) as cluster:
        # Rounds whose draws hold a killed scheduler and client, hosts that are cut off, credentials, and a
        # worker of another source.
        played = [play(cluster, number, 1, expected) for number in (9, 7)]
    for one in played:
        print(one)
    assert [one.wrong for one in played] == ["", ""]
    assert all(one.good and one.faults for one in played)
