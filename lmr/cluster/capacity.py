"""How many processors and how much memory this process may use: the container's share, not the host's.

A container, a batch job or a service has a CPU quota and a memory limit in its control group, and a set of
CPUs that it may run on. The host's own figures are larger, and whoever takes them starts too many workers.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil
from dask.utils import parse_bytes

from lmr.errors import ClusterError

__all__ = [
    "SMALLEST_BYTES",
    "cpu_quota",
    "fitting_workers",
    "memory_bytes",
    "memory_limit",
    "usable_cpus",
    "worker_memory",
]

GROUPS = Path("/sys/fs/cgroup")
SMALLEST_BYTES = 256 << 20
"""A worker process that has loaded lmr takes about this much before its first shard."""

_NO_LIMIT = 1 << 60
"""Version 1 writes about 2^63 where there is no limit."""


def usable_cpus() -> int:
    """Return how many worker processes find a processor each: by affinity and by the CPU quota."""
    affinity = len(os.sched_getaffinity(0))
    quota = cpu_quota(GROUPS, _membership())
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def memory_bytes() -> int:
    """Return how much memory there is for this process and its children: the container's, or the host's."""
    host = int(psutil.virtual_memory().total)
    limit = memory_limit(GROUPS, _membership())
    return host if limit is None else min(host, limit)


def fitting_workers(text: str, cpus: int, total_bytes: int) -> int:
    """Return how many workers a machine starts: one per processor, as many as memory allows, at least one."""
    each = SMALLEST_BYTES if _is_auto(text) else _parsed(text)
    return max(1, min(cpus, total_bytes // each))


def worker_memory(text: str, workers: int, total_bytes: int) -> int:
    """Return the memory limit of each of a machine's workers, in bytes.

    Parameters
    ----------
    text
        What a user asks for, such as `4GB` or `3.5GiB`; `auto`: an equal share of `total_bytes`.
    workers
        How many workers the machine has.
    total_bytes
        The memory that all of them may use.

    Raises
    ------
    ClusterError
        If it is no amount of memory, too little for a worker, or more than there is for all of them.
    """
    share = total_bytes // workers
    if _is_auto(text):
        if share < SMALLEST_BYTES:
            most = max(1, total_bytes // SMALLEST_BYTES)
            raise ClusterError(
                f"there is too little memory for {workers} workers",
                got=f"{total_bytes / 1e9:.1f} GB in all, {share / 1e9:.2f} GB each",
                fix=f"at most --workers {most}; 2 GB for each is a good start",
            )
        return share
    asked = _parsed(text)
    most = total_bytes // asked
    if workers > most:
        raise ClusterError(
            "the workers would take more memory than this machine or container has",
            got=f"{workers} of {asked / 1e9:.1f} GB, and {total_bytes / 1e9:.1f} GB in all",
            fix=f"--workers {most}, or --memory-per-worker auto" if most else "--memory-per-worker auto",
        )
    return asked


def _is_auto(text: str) -> bool:
    return text.strip().lower() == "auto"


def _parsed(text: str) -> int:
    try:
        asked = int(parse_bytes(text.strip()))
    except (ValueError, TypeError, OverflowError) as error:
        raise ClusterError(
            "--memory-per-worker is no amount of memory",
            got=text,
            fix="a number with a unit, such as 4GB or 3.5GiB; or auto",
        ) from error
    if asked < SMALLEST_BYTES:
        unit = f"; {text.strip()}GB?" if text.strip().isdecimal() else ""
        raise ClusterError(
            "--memory-per-worker is too little for a worker",
            got=f"{text}, that is {asked:,} bytes{unit}",
            fix="a number with a unit, such as 4GB; or auto",
        )
    return asked


def cpu_quota(groups: Path, membership: str) -> float | None:
    """Return the smallest CPU quota of a process's control groups, in processors; None where there is none.

    Parameters
    ----------
    groups
        Where control groups are mounted, `/sys/fs/cgroup`.
    membership
        The text of `/proc/self/cgroup`.
    """
    found = []
    for folder in _folders(groups, membership, "cpu"):
        two = _words(folder / "cpu.max")
        one = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        for words in (two, one):
            numbers = [_number(word) for word in words]
            if len(numbers) == 2 and numbers[0] and numbers[1]:
                found.append(numbers[0] / numbers[1])
    return min(found, default=None)


def memory_limit(groups: Path, membership: str) -> int | None:
    """Return the smallest memory limit of a process's control groups, in bytes; None where there is none."""
    found = []
    for folder in _folders(groups, membership, "memory"):
        # Above `high` processes are held up until nothing moves, so it is a limit too.
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            numbers = [_number(word) for word in _words(folder / name)]
            found += [number for number in numbers if number and number < _NO_LIMIT]
    return min(found, default=None)


def _folders(groups: Path, membership: str, controller: str) -> Iterator[Path]:
    """Yield the folders of a process's groups, each with those above it, of both versions.

    In a container the path in `/proc` may be the host's, of which only the top is seen: what is not there
    is passed over.
    """
    for line in membership.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        names = controllers.split(",")
        if controllers == "":
            roots = [groups, groups / "unified"]
        elif controller in names:
            roots = [groups / controllers, groups / controller]
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for root in roots:
            yield from (root / part for part in (inside, *inside.parents))


def _membership() -> str:
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _number(word: str) -> int | None:
    """Return a positive number; None for `max`, for -1 and for what is none."""
    return int(word) if word.isdecimal() else None
