"""What the application shows of a run: names, answers as JSON, pictures, and groups."""

import io
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from lmr import storage
from lmr.api.ask import Answer, PhotoSearch
from lmr.api.photos import GalleryPhotos, small_jpeg
from lmr.api.reopen import Reopened
from lmr.errors import StorageError
from lmr.storage.parquet import open_parquet, read_parquet
from lmr.text import printable

__all__ = ["SIZES_PX", "Gallery", "public_name"]

SIZES_PX = {"small": 320, "large": 1024}
"""Long sides of the pictures that are sent."""

_CACHE_BYTES = 64_000_000
_MOST_LINES = 60


def public_name(path: str) -> str:
    """Return what people see of a photo's path: nothing of where it lies on this machine.

    Examples
    --------
    >>> public_name("rome/1.jpg"), public_name("/home/me/rome/1.jpg"), public_name("s3://bucket/1.jpg")
    ('rome/1.jpg', '1.jpg', '1.jpg')
    """
    outside = path.startswith("/") or "://" in path
    return printable(path.rpartition("/")[2] if outside else path)


class Gallery:
    """A run's gallery, searched and shown; its methods take their time and are called from threads.

    Parameters
    ----------
    run
        The run.
    search
        Its search.
    """

    def __init__(self, run: Reopened, search: PhotoSearch) -> None:
        self.run, self.search = run, search
        self._files, self._lock = GalleryPhotos(run), threading.Lock()
        self._pictures: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._bytes = 0
        self._paths = run.flow.inputs.photos.gallery.places
        self.groups = self._read_groups()

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, row: int) -> str:
        """Return what people see of a photo's path."""
        return public_name(self._paths[row])

    def about(self) -> dict[str, Any]:
        """Return what the page says of the run."""
        labels = [self.run.datasets.label(stage) for stage in self.search.stages]
        return {
            "name": printable(self.run.root.rstrip("/").rpartition("/")[2]),
            "photos": len(self),
            "stages": [printable(label) for label in labels],
            "groups": len(self.groups),
        }

    def answer(self, answer: Answer) -> dict[str, Any]:
        """Return an answer as JSON has it."""
        return {
            "width": answer.width,
            "height": answer.height,
            "note": answer.note,
            "confident": answer.confident,
            "seconds": round(sum(answer.seconds.values()), 3),
            "matches": [
                {
                    "photo": one.row,
                    "name": self.name(one.row),
                    "rank": one.rank,
                    "score": _plain(one.score),
                    "similarity": _plain(one.similarity),
                    "inliers": one.inliers,
                    "confident": one.confident,
                    "probability": None if one.probability is None else _plain(one.probability),
                    "stage": printable(self.run.datasets.label(one.stage)),
                    "lines": _thinned(one.lines).round(4).tolist() if one.confident else [],
                }
                for one in answer.matches
            ],
        }

    def photo(self, row: int) -> bytes:
        """Return the file of a photo; nothing where it cannot be read."""
        return self._files.read([row]).get(row, b"")

    def picture(self, row: int, size: str) -> bytes:
        """Return a photo as a JPEG of a size of `SIZES_PX`; nothing where it cannot be shown."""
        key = (row, size)
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        made = small_jpeg(content, SIZES_PX[size]) if (content := self.photo(row)) else b""
        with self._lock:
            if key not in self._pictures:
                self._pictures[key] = made
                self._bytes += len(made)
            while self._bytes > _CACHE_BYTES:
                _, gone = self._pictures.popitem(last=False)
                self._bytes -= len(gone)
        return made

    def _read_groups(self) -> list[list[int]]:
        """Return the rows of the photos of each group, as `lmr group` has written them; none before that."""
        url = storage.join(self.run.root, "groups.parquet")
        if not storage.exists(url):
            return []
        try:
            rows = read_parquet(open_parquet(io.BytesIO(storage.read(url))), ["group", "photo"])
            pairs = [rows.column(name).to_pylist() for name in ("group", "photo")]
        except (KeyError, OSError, ValueError, StorageError):
            return []
        row_of = {photo_id: row for row, photo_id in enumerate(self.run.flow.inputs.photos.gallery.ids)}
        groups: dict[int, list[int]] = {}
        for number, photo_id in zip(*pairs, strict=True):
            if photo_id in row_of:
                groups.setdefault(number, []).append(row_of[photo_id])
        return [groups[number] for number in sorted(groups)]


def _plain(number: float) -> float | None:
    """Return a number as JSON has it: what is no number is nothing."""
    return round(number, 5) if np.isfinite(number) else None


def _thinned(lines: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    some = np.unique(np.linspace(0, len(lines) - 1, min(len(lines), _MOST_LINES)).astype(int))
    return np.asarray(lines[some])
