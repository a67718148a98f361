"""Settings of photos that lie at web addresses."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from lmr.runtime.settings import Settings
from lmr.storage.web import WebLimits

__all__ = ["WebSettings"]


@dataclass(frozen=True, kw_only=True)
class WebSettings(Settings):
    """How photos at web addresses are fetched; none of this changes what a photo is."""

    connections: Annotated[int, Ge(1), Le(64)] = 32
    """Photos on their way at once, of one task."""

    per_host: Annotated[int, Ge(1), Le(64)] = 8
    """Photos on their way at once from one host, of one task; raise it for a server of your own only."""

    timeout_seconds: Annotated[float, Ge(0.05), Le(3600)] = 30.0
    """Most time for one try of one photo, s."""

    tries: Annotated[int, Ge(1), Le(20)] = 4
    """How often a photo is tried before its row says why it is not there."""

    longest_pause_seconds: Annotated[float, Ge(0.01), Le(3600)] = 60.0
    """Longest pause before another try, s; a host that asks for a longer one is left to `lmr retry`."""

    private: bool = False
    """Whether addresses may lead to this machine and its networks; only for lists that you wrote yourself."""

    def limits(self) -> WebLimits:
        """Return the same as storage takes it."""
        return WebLimits(
            connections=self.connections,
            per_host=self.per_host,
            timeout_seconds=self.timeout_seconds,
            tries=self.tries,
            longest_pause_seconds=self.longest_pause_seconds,
            private=self.private,
        )
