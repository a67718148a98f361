"""Sizes come from the container: sample trees of control groups, and a real one where it is allowed."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from lmr.cluster import capacity
from lmr.cluster.capacity import cpu_quota, memory_limit, worker_memory
from lmr.errors import ClusterError
from tests.support.clusters import ROOT


def tree(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


TREES = {
    "version 2, in a container": (
        "0::/\n",
        {"cpu.max": "150000 100000", "memory.max": "2147483648"},
        (1.5, 2 << 30),
    ),
    "version 2, a limit above": (
        "0::/kubepods/pod1/main\n",
        {
            "kubepods/pod1/cpu.max": "400000 100000",
            "kubepods/pod1/memory.max": "34359738368",
            "kubepods/pod1/main/cpu.max": "max 100000",
            "kubepods/pod1/main/memory.max": "max",
        },
        (4.0, 32 << 30),
    ),
    "version 2, held up above a soft limit": (
        "0::/job\n",
        {"job/memory.high": "1073741824", "job/memory.max": "2147483648", "job/cpu.max": "max"},
        (None, 1 << 30),
    ),
    "both versions side by side": (
        "5:memory:/job\n0::/job\n",
        {"unified/job/cpu.max": "50000 100000", "memory/job/memory.limit_in_bytes": "1073741824"},
        (0.5, 1 << 30),
    ),
    "version 2, the host's path in a container": (
        "0::/system.slice/docker-abc.scope\n",
        {"cpu.max": "max 100000", "memory.max": "1073741824"},
        (None, 1 << 30),
    ),
    "version 1, with the controllers joined": (
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
        {
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            "memory/docker/abc/memory.limit_in_bytes": "536870912",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
        (2.5, 512 << 20),
    ),
    "version 1, without limits": (
        "4:memory:/\n3:cpu:/\n0::/\n",
        {
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
        (None, None),
    ),
    "none": ("", {}, (None, None)),
    "not to be understood": ("nonsense\n0::/\n", {"cpu.max": "", "memory.max": "lots"}, (None, None)),
}


@pytest.mark.parametrize("name", TREES)
def test_control_groups_are_read(name, tmp_path):
    membership, files, expected = TREES[name]
    groups = tree(tmp_path, files)
    assert (cpu_quota(groups, membership), memory_limit(groups, membership)) == expected


def test_memory_is_shared_out_among_the_workers():
    assert worker_memory("auto", 4, 32 << 30) == 8 << 30
    assert worker_memory(" 3.5GiB ", 4, 32 << 30) == int(3.5 * 2**30)


@pytest.mark.parametrize("text", ["lots", "", "-1GB", "4XB", "nan", "1e400GB"])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(ClusterError, match="--memory-per-worker is"):
        worker_memory(text, 1, 32 << 30)


def test_four_is_not_four_gigabytes():
    with pytest.raises(ClusterError, match=r"too little for a worker\ngot: 4, that is 4 bytes; 4GB\?"):
        worker_memory("4", 1, 32 << 30)


def test_more_than_there_is_is_refused_and_what_is_proposed_works():
    with pytest.raises(ClusterError, match=r"got: 64 of 8\.0 GB, and 34\.4 GB in all\nfix: --workers 4,"):
        worker_memory("8GB", 64, 32 << 30)
    assert worker_memory("8GB", 4, 32 << 30) == 8_000_000_000
    with pytest.raises(ClusterError, match=r"in all\nfix: --memory-per-worker auto$"):
        worker_memory("64GB", 1, 32 << 30)
    with pytest.raises(ClusterError, match=r"too little memory for 64 workers(.|\n)*at most --workers 8;"):
        worker_memory("auto", 64, 2 << 30)
    assert worker_memory("auto", 8, 2 << 30) == 256 << 20


def test_workers_are_as_many_as_the_set_of_cpus_and_the_quota_allow(tmp_path, monkeypatch):
    """A set of CPUs (cpuset, taskset) is the process's affinity, whichever version sets it."""
    groups = tree(tmp_path, {"cpu.max": "250000 100000"})
    monkeypatch.setattr(capacity, "GROUPS", groups)
    monkeypatch.setattr(capacity, "_membership", lambda: "0::/\n")
    for cpus, found in ((8, 2), (1, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cpus=cpus: set(range(cpus)))
        assert capacity.usable_cpus() == found


def limits_in(groups):
    """What a process in these groups finds; it enters them before it looks."""
    enter = "".join(f"open({str(g / 'cgroup.procs')!r}, 'w').write('0')\n" for g in groups)
    code = f"{enter}from lmr.cluster.capacity import *\nprint(usable_cpus(), memory_bytes())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return [int(word) for word in done.stdout.split()]


def test_a_real_control_group_of_one_cpu_and_a_gigabyte():
    name, base = f"lmr-{uuid.uuid4().hex[:8]}", Path("/sys/fs/cgroup")
    split = (base / "memory").is_dir()
    groups = [base / "memory" / name, base / "cpu" / name] if split else [base / name]
    made = []
    try:
        for group in groups:
            try:
                group.mkdir()
                made.append(group)
            except OSError as error:
                pytest.skip(f"control groups are not allowed here: {error}")
        try:
            if split:
                (groups[0] / "memory.limit_in_bytes").write_text(str(1 << 30))
                (groups[1] / "cpu.cfs_period_us").write_text("100000")
                (groups[1] / "cpu.cfs_quota_us").write_text("100000")
            else:
                (groups[0] / "memory.max").write_text(str(1 << 30))
                (groups[0] / "cpu.max").write_text("100000 100000")
        except OSError as error:
            pytest.skip(f"control groups cannot be limited here: {error}")
        assert limits_in(groups) == [1, 1 << 30]
    finally:
        for group in made:
            group.rmdir()
