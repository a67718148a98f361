"""Which photos a run has had at a later try: another try makes another photo of them, and of no others."""

from collections.abc import Mapping
from dataclasses import replace

from lmr import storage
from lmr.runtime.steps import Role
from lmr.steps.photos.listing import Photos
from lmr.storage.json_files import read_json, write_json

__all__ = ["read_tries", "store_tries", "tried", "with_tries"]

_MARK = "try:"


def tried(path: str, stamp: str, tries: Mapping[str, int]) -> str:
    """Return a photo's stamp with the try at which a run has had it; the first one is not written.

    Examples
    --------
    >>> tried("a.jpg", "0 web-12", {"a.jpg": 2}), tried("b.jpg", "0 web-34 try:2", {})
    ('0 web-12 try:2', '0 web-34')
    """
    if path not in tries and _MARK not in stamp:
        return stamp
    words = [word for word in stamp.split(" ") if not word.startswith(_MARK)]
    return " ".join([*words, f"{_MARK}{tries[path]}"] if path in tries else words)


def with_tries(photos: Photos, tries: Mapping[str, int]) -> Photos:
    """Return photos with the tries at which a run has had them."""
    if not tries:
        return photos
    pairs = zip(photos.paths, photos.stamps, strict=True)
    return replace(photos, stamps=tuple(tried(path, stamp, tries) for path, stamp in pairs))


def read_tries(role: Role, root: str) -> dict[str, int]:
    """Read at which try a run has had photos, by known path; those of the first try are not in it."""
    url = _url(role, root)
    if not storage.exists(url):
        return {}
    fix = f"delete {url}: photos that were had at a later try are then fetched anew"
    found: dict[str, int] = read_json(url, dict[str, int], fix=fix)
    return found


def store_tries(role: Role, root: str, tries: Mapping[str, int]) -> None:
    """Note at which try photos were had."""
    if tries:
        write_json(_url(role, root), dict(tries))


def _url(role: Role, root: str) -> str:
    return storage.join(root, "photos", role, "tries.json")
