"""Photos of a run's gallery, by row: pictures for pages that show what was found."""

import io
from collections import defaultdict
from collections.abc import Iterable

from PIL import Image

from lmr.api.reopen import Reopened
from lmr.errors import LmrError, PhotoError
from lmr.features.decoding.decode import decode_photo
from lmr.storage import read_outside

__all__ = ["GalleryPhotos", "small_jpeg"]

_QUALITY = 80


class GalleryPhotos:
    """The files of a gallery's photos.

    A file is read where it lies as long as it has the size that it had; else from the run's own shards, of
    which each holds many photos.

    Parameters
    ----------
    run
        The run.
    """

    def __init__(self, run: Reopened) -> None:
        assert run.flow.images is not None  # `reopen` asks
        self._photos = run.flow.inputs.photos.gallery
        self._images = run.flow.images.gallery.dataset(run.root)

    def __len__(self) -> int:
        return len(self._photos)

    def read(self, rows: Iterable[int]) -> dict[int, bytes]:
        """Return the files of some photos, by row; those that cannot be read are left out."""
        wanted = list(rows)
        found: dict[int, bytes] = {}
        try:
            contents = read_outside([self._photos.piece(row) for row in wanted], most_bytes=2_000_000_000)
        except LmrError:
            contents = [b"" for _ in wanted]
        by_shard: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row, content in zip(wanted, contents, strict=True):
            size = int(self._photos.stamps[row].split(" ")[0])
            if isinstance(content, bytes) and len(content) == size:
                found[row] = content
            else:
                shard, inside = self._photos.layout.place(row)
                by_shard[shard].append((row, inside))
        for shard, some in by_shard.items():
            try:
                images = self._images.read(shard, ["image"]).column("image")
            except LmrError:
                continue
            found |= {row: images[inside].as_py() for row, inside in some if images[inside].as_py()}
        return found


def small_jpeg(content: bytes, side_px: int) -> bytes:
    """Return a photo, upright and at most so large, as a JPEG; nothing where it cannot be decoded."""
    try:
        photo = Image.fromarray(decode_photo(content, max_side_px=side_px))
    except PhotoError:
        return b""
    out = io.BytesIO()
    photo.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
