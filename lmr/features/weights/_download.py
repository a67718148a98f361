"""A downloader for pooch that goes on where an interrupted download stopped."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from filelock import FileLock, Timeout

from lmr.errors import LmrError

if TYPE_CHECKING:
    from requests import Response

__all__ = ["ProgressBar", "Resuming"]

CHUNK_BYTES = 64 * 1024
TIMEOUT_S = 30
RANGE_NOT_SATISFIABLE = 416


class ProgressBar(Protocol):
    """What pooch asks of a progress bar; tqdm's bars are such."""

    total: int

    def update(self, count: int, /) -> object:
        """Add bytes."""

    def reset(self) -> object:
        """Start again from nothing."""

    def close(self) -> object:
        """End."""


class Resuming:
    """Downloads to a partial file first, and goes on with it if the server still has the same file.

    "The same" is the server's word: its ETag, or else its date, is kept beside the partial file and sent with
    the request for the rest (RFC 9110, If-Range). Without either, a download starts anew.

    Parameters
    ----------
    part
        The partial file. It is kept when a download breaks off.
    check
        Is called with the whole file; what it raises ends the download, and the file is then removed.
    progress
        Is shown the bytes of this request.
    """

    def __init__(self, part: Path, check: Callable[[Path], object], progress: ProgressBar | None) -> None:
        self.part, self.check, self.progress = part, check, progress
        self.tag = part.with_name(f"{part.name}.tag")

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download `url` to `output_file`, as pooch asks.

        Raises
        ------
        LmrError
            If another process downloads the same file.
        requests.RequestException
            If there is no network, the server refuses, or the connection breaks.
        """
        lock = self.part.with_name(f"{self.part.name}.lock")
        try:
            with FileLock(lock, blocking=False):
                try:
                    self._download_whole(url, output_file)
                finally:
                    lock.unlink(missing_ok=True)  # while it is held: who waits for it notices
        except Timeout as error:
            raise LmrError(
                f"another process is downloading {url}", got=f"a lock on {lock}", fix="wait for it"
            ) from error

    def _download_whole(self, url: str, output_file: str) -> None:
        with self.part.open("ab") as file:
            self._download(url, file)
            try:
                self.check(self.part)
            except BaseException:
                self._discard(file)
                raise
            os.replace(self.part, output_file)
            self.tag.unlink(missing_ok=True)

    def _download(self, url: str, file: BinaryIO) -> None:
        import pooch
        from requests import HTTPError

        begun = file.seek(0, os.SEEK_END) if self.tag.is_file() else 0
        headers = {"Accept-Encoding": "identity"}  # the file's own bytes, or their count means nothing
        if begun:
            headers |= {"Range": f"bytes={begun}-", "If-Range": self.tag.read_text()}

        def start(response: "Response", *_: object, **__: object) -> None:
            if not response.ok or response.is_redirect:
                return
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
            if not (response.status_code == 206 and goes_on):
                file.truncate(0)
            self._remember(response)

        downloader = pooch.HTTPDownloader(
            progressbar=self.progress or False,
            chunk_size=CHUNK_BYTES,
            headers=headers,
            hooks={"response": start},
            timeout=TIMEOUT_S,
        )
        try:
            downloader(url, file, None)
        except HTTPError as error:
            status = error.response.status_code if error.response is not None else None
            if not begun or status != RANGE_NOT_SATISFIABLE:
                raise
            file.truncate(0)  # there is no rest: the partial file is whole already, or of another file
            self.tag.unlink()
            self._download(url, file)

    def _remember(self, response: "Response") -> None:
        tag = response.headers.get("ETag", "")
        if not tag or tag.startswith("W/"):  # a weak one does not promise the same bytes
            tag = response.headers.get("Last-Modified", "")
        if tag:
            self.tag.write_text(tag)
        else:
            self.tag.unlink(missing_ok=True)

    def _discard(self, file: BinaryIO) -> None:
        file.truncate(0)
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)
