"""Photos in tar archives: where each member lies, so that it is read alone and nothing is unpacked."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from lmr import storage
from lmr.errors import LmrError, StorageError
from lmr.text import printable

__all__ = ["ARCHIVE_SUFFIX", "PACKED_SUFFIXES", "Member", "members"]

ARCHIVE_SUFFIX = ".tar"
"""Suffix of files whose members are photos of the folder that they lie in."""

PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")
"""Suffixes of archives of which no part can be read alone."""


@dataclass(frozen=True)
class Member:
    """Something in an archive.

    Attributes
    ----------
    path
        Its path in the archive.
    size, offset
        Of its bytes.
    time
        When it was changed, as the archive says.
    irregular
        What it is, if it is no file; empty for files.
    """

    path: str
    size: int = 0
    offset: int = 0
    time: float = 0.0
    irregular: str = ""


def members(url: str) -> Iterator[Member]:
    """Yield the members of an archive; of several of one path the last, as unpacking would leave it.

    Raises
    ------
    LmrError
        If it is no tar archive, or ends in the middle of a member.
    """
    found: dict[str, Member] = {}
    with storage.open_read(url) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with tarfile.TarFile(fileobj=file) as archive:
                for info in archive:
                    if not info.isdir():
                        found[_clean(info.name)] = _member(info)
        except tarfile.TarError as error:
            raise LmrError(
                f"{printable(url)} cannot be read as a tar archive",
                got=str(error),
                fix="is it whole, and not packed? unpack a packed one first: gunzip FILE.tar.gz",
            ) from error
    cut = [member for member in found.values() if member.offset + member.size > size]
    if cut:
        raise StorageError(
            f"{printable(url)} ends in the middle of {printable(cut[0].path)}",
            got=f"{size:,} bytes",
            fix="copy it once more: it is not whole",
        )
    yield from found.values()


def _member(info: tarfile.TarInfo) -> Member:
    path = _clean(info.name)
    if info.issym() or info.islnk():
        return Member(path, irregular="link in an archive")
    if not info.isreg() or info.issparse():
        return Member(path, irregular="special file in an archive")
    return Member(path, info.size, info.offset_data, float(info.mtime))


def _clean(name: str) -> str:
    """Return a member's path without what does not count: `./a//b` is `a/b`."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))
