"""An answer as pages show it: pictures of the photos found, and lines between what agrees."""

import io

from PIL import Image

from lmr.api.ask import Answer, FoundPhoto
from lmr.api.photos import GalleryPhotos, small_jpeg
from lmr.api.reopen import Reopened
from lmr.evaluation.pages.answers import ShownAnswer, ShownMatch
from lmr.evaluation.pages.pictures import data_uri, match_picture

__all__ = ["shown_answer"]

_SMALL_PX, _LARGE_PX = 320, 640
_MOST_LINES = 10  # pictures with lines; a page is one file


def shown_answer(run: Reopened, name: str, content: bytes, answer: Answer, says: str) -> ShownAnswer:
    """Return an answer with its pictures.

    Parameters
    ----------
    run
        The run that was asked.
    name, content
        The photo's name, and the bytes of its file.
    answer
        What was found for it.
    says
        A sentence of that.
    """
    files = GalleryPhotos(run).read(one.row for one in answer.matches)
    query = small_jpeg(content, _LARGE_PX)
    lined = [one.row for one in answer.matches if one.confident][:_MOST_LINES]
    matches = []
    for one in answer.matches:
        large = small_jpeg(files.get(one.row, b""), _LARGE_PX) if one.row in lined else b""
        small = small_jpeg(large or files.get(one.row, b""), _SMALL_PX)
        matches.append(
            ShownMatch(
                path=one.path,
                says=_figures(one),
                confident=bool(one.confident),
                picture=data_uri(small) if small else "",
                lines=_lines(query, large, one) if query and large else "",
            )
        )
    picture = small_jpeg(query, _SMALL_PX)
    return ShownAnswer(name=name, says=says, picture=data_uri(picture) if picture else "", matches=matches)


def _figures(one: FoundPhoto) -> str:
    inliers = f"{one.inliers:,} inliers, " if one.inliers else ""
    sure = "" if one.probability is None else f", probability {one.probability:.2f}"
    return f"{'confident, ' if one.confident else ''}{inliers}similarity {one.similarity:.2f}{sure}"


def _lines(query: bytes, photo: bytes, one: FoundPhoto) -> str:
    sizes = [Image.open(io.BytesIO(content)).size for content in (query, photo)]
    ends = one.lines * [*sizes[0], *sizes[1]]
    return data_uri(match_picture(query, photo, ends[:, :2], ends[:, 2:]))
