"""How often Dask's processes look at themselves.

By default a worker notes which line it runs a hundred times a second, and measures fifty times a second
whether its event loop answers. That takes three processor seconds in a hundred, of a worker that computes
with all it has. Tasks here take seconds to minutes, for which a fraction of that tells as much.

A worker and its nanny each look at its memory ten times a second by default, five times here. A process that
grows by a gigabyte a second is so noticed 200 MB later at most, where 100 MB were the most before.
"""

import os

__all__ = ["watching", "watching_environment"]

_WATCHING = {
    "distributed.worker.profile.interval": "250ms",
    "distributed.worker.memory.monitor-interval": "200ms",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
}


def watching() -> dict[str, str]:
    """Return Dask's settings; those that the environment sets are left to it."""
    return {key: value for key, value in _WATCHING.items() if _variable(key) not in os.environ}


def watching_environment() -> dict[str, str]:
    """Return the same as environment variables, for processes that are started by a command."""
    return {_variable(key): value for key, value in watching().items()}


def _variable(key: str) -> str:
    return "DASK_" + key.upper().replace(".", "__").replace("-", "_")
