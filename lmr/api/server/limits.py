"""What the application takes from strangers: sizes, times, and how often."""

import time
from collections import OrderedDict
from dataclasses import dataclass, replace

from lmr.steps.photos.ingest import IngestSettings

__all__ = ["Limits", "RateLimit"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one server.

    Attributes
    ----------
    upload_bytes
        Largest upload, bytes.
    max_pixels
        Largest photo that is decoded, pixels.
    decode_seconds
        Most processor time for looking at one upload, s.
    upload_seconds, search_seconds
        How long an upload may take to arrive, and a search to be answered, s.
    waiting
        Searches that may wait for their turn; one is worked at.
    per_minute, burst
        Searches of one client, on average and at once.
    connections
        Connections at a time.
    """

    upload_bytes: int = 20_000_000
    max_pixels: int = 40_000_000
    decode_seconds: float = 5.0
    upload_seconds: float = 20.0
    search_seconds: float = 60.0
    waiting: int = 8
    per_minute: float = 60.0
    burst: int = 20
    connections: int = 64

    def of_photo(self, run: IngestSettings) -> IngestSettings:
        """Return what an upload may be: no more than here, and no more than the run's own photos."""
        return replace(
            run,
            max_bytes=min(run.max_bytes, self.upload_bytes),
            max_pixels=min(run.max_pixels, self.max_pixels),
            max_seconds=min(run.max_seconds, self.decode_seconds),
        )


class RateLimit:
    """Counts what each client may still ask for; it fills up again with time.

    Parameters
    ----------
    per_minute, burst
        How fast it fills, and how much it holds.
    clients
        Clients that are remembered, at most; the least recent one is forgotten first.
    """

    def __init__(self, per_minute: float, burst: int, clients: int = 10_000) -> None:
        self._per_second, self._burst, self._most = per_minute / 60, burst, clients
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, client: str, now: float | None = None) -> float:
        """Take one from a client's share and return 0; or return after how many seconds there is one."""
        now = time.monotonic() if now is None else now
        left, before = self._left.pop(client, (float(self._burst), now))
        left = min(self._burst, left + (now - before) * self._per_second)
        wait = 0.0 if left >= 1 else (1 - left) / self._per_second
        self._left[client] = (left - 1 if left >= 1 else left), now
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return wait
