"""Dask's command line, whose own errors are told as lmr's: what, got, fix.

Schedulers and workers are started as `python -m lmr.cluster.entry scheduler …`, with `PYTHONSAFEPATH`: they
import the lmr that is installed, and not what lies in the folder that they were started in.
"""

import errno
import ssl
import sys

from dask.cli import run_cli

from lmr.errors import ClusterError, LmrError, one_line

__all__ = ["explained", "main"]

_FIXES = {
    errno.EADDRINUSE: (
        "the port is taken by another process",
        "choose another --port (0: any that is free), or stop the scheduler that has it: ss -ltnp",
    ),
    errno.EACCES: (
        "the port or file is not allowed to this user",
        "choose a --port above 1023, and certificates that this user may read",
    ),
    errno.EPERM: ("this is not allowed to this user", "choose a --port above 1023"),
    errno.EADDRNOTAVAIL: (
        "the address is none of this machine's",
        "give --host an address that `ip addr` shows, or leave it away",
    ),
    errno.EAGAIN: (
        "no further process can be started",
        "start fewer --workers, or raise the limit on processes (ulimit -u; a container's pids limit)",
    ),
    errno.ENOMEM: ("no further process can be started", "start fewer --workers: the memory is used up"),
    errno.EMFILE: ("too many files are open", "raise the limit on open files: ulimit -n 65536"),
    errno.ENOSPC: (
        "the disk for temporary files is full",
        "free some space, or set DASK_TEMPORARY_DIRECTORY to a folder on another disk",
    ),
}


def explained(error: BaseException, role: str) -> LmrError:
    """Return an error of Dask's scheduler or workers as one that says what can be done."""
    if isinstance(error, LmrError):
        return error
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for one in chain:
        if isinstance(one, ssl.SSLError):
            return ClusterError(
                f"the {role}'s certificate cannot be used",
                got=one_line(one),
                fix="make certificates that belong together, `lmr cluster certs`, and copy them anew",
            )
        if isinstance(one, OSError) and one.errno in _FIXES:
            what, fix = _FIXES[one.errno]
            return ClusterError(f"the {role} did not start: {what}", got=one_line(one), fix=fix)
    return ClusterError(
        f"the {role} ended with an error of Dask",
        got=one_line(error),
        fix="see the lines above; DASK_… variables and ~/.config/dask/*.yaml count as options too",
    )


def main() -> None:
    """Run Dask's command line."""
    role = next((word for word in ("scheduler", "worker") if word in sys.argv[1:3]), "dask")
    try:
        run_cli()
    except Exception as error:
        print(f"error: {explained(error, role)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
