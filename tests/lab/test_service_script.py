"""The shell program that a server runs, run here without ssh."""

import os
import subprocess
import time

import pytest

from lmr.lab.services import SERVICE_SCRIPT


@pytest.fixture
def call(tmp_path):
    def call(verb, *command):
        done = subprocess.run(
            ["sh", "-s", "--", verb, "folder", "cpu", *command],
            input=SERVICE_SCRIPT,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.split("\n")

    yield call
    call("stop")


def leader(tmp_path):
    return int((tmp_path / "folder" / "cpu.pid").read_text())


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_service_lives_once_and_a_stop_reaches_its_grandchildren(call, tmp_path):
    assert call("status")[0] == "absent"
    assert call("start", "sh", "-c", "sleep 100 & echo ready; wait")[0] == "started"
    assert call("start", "sh", "-c", "echo never")[0] == "already"
    wait_for(lambda: call("status")[3] == "ready")
    assert call("status")[:1] == ["running"]
    group = leader(tmp_path)
    assert call("stop")[0] == "stopped"
    assert gone(group)
    assert call("status")[0] == "absent"
    assert call("stop")[0] == "absent"


@pytest.mark.slow
def test_what_ends_with_an_error_is_started_again_and_counted(call):
    call("start", "sh", "-c", "exit 3")
    wait_for(lambda: int(call("status")[2]) >= 2)
    assert call("status")[3] == "ended with 3, starts again in 5 s"


def test_what_was_told_to_stop_stays_stopped(call, tmp_path):
    call("start", "true")
    wait_for(lambda: call("status")[0] == "absent")


def test_a_strangers_process_number_is_let_alone(call, tmp_path):
    stranger = subprocess.Popen(["sleep", "100"], start_new_session=True)
    try:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "cpu.pid").write_text(str(stranger.pid))
        assert call("status")[0] == "absent"
        assert call("stop")[0] == "absent"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_only_the_user_may_read_what_a_service_leaves(call, tmp_path):
    call("start", "sleep", "100")
    assert (tmp_path / "folder").stat().st_mode & 0o077 == 0
    assert (tmp_path / "folder" / "cpu.log").stat().st_mode & 0o077 == 0
