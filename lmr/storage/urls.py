"""URLs: which storage one means, and which path there; no character of a path means anything else."""

import os
import re
from typing import Any

import fsspec

__all__ = [
    "absolute",
    "file_system",
    "forget_credentials",
    "is_local",
    "join",
    "local_path",
    "path_of",
    "server_of",
]

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")

# A wrong address must not look like a hang, and there is one place that tries again (lmr.storage.retries).
# What the user's own fsspec configuration says goes first.
fsspec.config.conf.setdefault("s3", {}).setdefault(
    "config_kwargs",
    {"connect_timeout": 5, "read_timeout": 60, "retries": {"total_max_attempts": 1, "mode": "standard"}},
)

# Web servers are asked through the proxy that the environment names, as other programs do.
fsspec.config.conf.setdefault("http", {}).setdefault("client_kwargs", {"trust_env": True})


def join(url: str, *parts: str) -> str:
    """Join path parts to a URL with single slashes."""
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts if part)])


def forget_credentials(url: str) -> None:
    """Drop the file systems of a URL's kind, whose clients hold the credentials that they began with."""
    if not is_local(url):
        _kind(url).clear_instance_cache()


def file_system(url: str) -> tuple[Any, str]:
    """Return what reads a URL, and the path there.

    fsspec's own way from a URL takes `::` in a name for a chain of storages.
    """
    if is_local(url):
        return fsspec.filesystem("file"), local_path(url)
    fs = fsspec.filesystem(_protocol(url), **_kind(url)._get_kwargs_from_urls(url))
    if hasattr(fs, "retries"):
        fs.retries = 1  # s3fs would try five times at each of our tries
    if hasattr(fs, "dircache"):
        # A listing that was kept would hide from reads what others have written since.
        fs.dircache.use_listings_cache = False
    return fs, path_of(url)


def path_of(url: str) -> str:
    """Return the path of a URL in its storage."""
    return local_path(url) if is_local(url) else str(_kind(url)._strip_protocol(url))


def server_of(url: str) -> str:
    """Name what answers for a URL: a bucket, or this machine's file systems."""
    return "file" if is_local(url) else "/".join(url.split("/")[:3])


def is_local(url: str) -> bool:
    """Tell whether a URL is a path on this machine's file systems."""
    return not _SCHEME.match(url) or url.startswith(("file://", "local://"))


def absolute(url: str) -> str:
    """Return a URL that means the same in every working directory."""
    return local_path(url) if is_local(url) else url


def local_path(url: str) -> str:
    """Return the absolute path of a local URL; a `~` at its beginning is the home folder."""
    path = url.partition("://")[2] if _SCHEME.match(url) else url
    return os.path.abspath(os.path.expanduser(path))


def _protocol(url: str) -> str:
    return url.partition("://")[0].lower()


def _kind(url: str) -> Any:
    return fsspec.get_filesystem_class(_protocol(url))
