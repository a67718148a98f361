"""Kaggle's files: submissions and solutions. The one module of this folder that reads and writes.

All are CSV of one line per query after a header, with lists separated by spaces:

=========================  ==================  =======================================
file                       header              a line
=========================  ==================  =======================================
retrieval submission       ``id,images``       ``query,photo photo …`` (at most 100)
retrieval solution         ``id,images``       ``query,photo photo …``
recognition submission     ``id,landmarks``    ``photo,landmark confidence`` or ``photo,``
recognition solution       ``id,landmark(s)``  ``photo,landmark landmark …``
=========================  ==================  =======================================

In a solution `None` or nothing stands for no right answer, and a third column `Usage` (Public, Private,
Ignored) is not read. Windows line ends and a byte order mark are accepted.
"""

import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence

import fsspec

from lmr.errors import LmrError, StorageError

__all__ = [
    "MAX_PREDICTIONS",
    "read_recognition_solution",
    "read_recognition_submission",
    "read_solution",
    "read_submission",
    "recognition_csv",
    "submission_csv",
    "write_recognition_submission",
    "write_submission",
]

MAX_PREDICTIONS = 100
"""The most gallery photos that the challenge accepts per query."""

Url = str | os.PathLike[str]


def read_submission(url: Url) -> dict[str, list[str]]:
    """Read a retrieval submission: query id to gallery ids, best first, in the file's order.

    Raises
    ------
    StorageError
        If the file cannot be read.
    LmrError
        If it is not such a file, names a query twice, or gives one more than 100 photos; with the number of
        the line.
    """
    predictions: dict[str, list[str]] = {}
    for where, query_id, photos in _rows(url, ("id,images",)):
        # The ids of a million photos come back in 10M places; interned, each is kept once.
        predictions[query_id] = [sys.intern(photo_id) for photo_id in photos.split()]
        _check_count(predictions[query_id], f"{where}: query {query_id}")
    return predictions


def read_solution(url: Url) -> dict[str, list[str]]:
    """Read a retrieval solution: query id to the ids of its right photos, none for a query without.

    Raises as `read_submission`.
    """
    rows = _rows(url, ("id,images", "id,images,usage"))
    return {query_id: _answers(photos) for _, query_id, photos in rows}


def read_recognition_solution(url: Url) -> dict[str, list[str]]:
    """Read a recognition solution: photo id to its landmarks, none for a photo without.

    Raises as `read_submission`.
    """
    rows = _rows(url, ("id,landmark", "id,landmarks", "id,landmark,usage", "id,landmarks,usage"))
    return {photo_id: _answers(landmarks) for _, photo_id, landmarks in rows}


def read_recognition_submission(url: Url) -> dict[str, tuple[str, float]]:
    """Read a recognition submission: photo id to landmark and confidence; unnamed photos are left out.

    Raises as `read_submission`, and if a line does not hold one landmark and one number.
    """
    predictions = {}
    for where, photo_id, cell in _rows(url, ("id,landmarks",)):
        if not cell:
            continue
        try:
            landmark, confidence = cell.split()
            predictions[photo_id] = sys.intern(landmark), float(confidence)
        except ValueError as error:
            raise LmrError(
                f"{where}: photo {photo_id} has no landmark with confidence",
                got=repr(cell)[:80],
                fix="write one landmark, a space and one number, or nothing",
            ) from error
    return predictions


def submission_csv(predictions: Mapping[str, Sequence[str]]) -> bytes:
    r"""Return the bytes of a retrieval submission, queries in the mapping's order.

    Raises
    ------
    LmrError
        If a query has more than 100 photos, or an id would break the file (empty, or with a space, comma or
        quote).

    Examples
    --------
    >>> submission_csv({"q1": ["a", "b"], "q2": []})
    b'id,images\nq1,a b\nq2,\n'
    """
    lines = ["id,images"]
    for query_id, photo_ids in predictions.items():
        _check_count(photo_ids, f"query {query_id}")
        _check_ids(query_id, (query_id, *photo_ids))
        lines.append(f"{query_id},{' '.join(photo_ids)}")
    return "\n".join([*lines, ""]).encode()


def recognition_csv(predictions: Mapping[str, tuple[str, float] | None]) -> bytes:
    r"""Return the bytes of a recognition submission; None for a photo that is given no landmark.

    Confidences are written so that they read back the same.

    Examples
    --------
    >>> recognition_csv({"p1": ("8815", 0.1), "p2": None})
    b'id,landmarks\np1,8815 0.1\np2,\n'
    """
    lines = ["id,landmarks"]
    for photo_id, prediction in predictions.items():
        _check_ids(photo_id, (photo_id,) if prediction is None else (photo_id, prediction[0]))
        named = "" if prediction is None else f"{prediction[0]} {float(prediction[1])!r}"
        lines.append(f"{photo_id},{named}")
    return "\n".join([*lines, ""]).encode()


def write_submission(url: Url, predictions: Mapping[str, Sequence[str]]) -> None:
    """Write a retrieval submission, whole or not at all. Raises as `submission_csv`, and StorageError."""
    _write(url, submission_csv(predictions))


def write_recognition_submission(url: Url, predictions: Mapping[str, tuple[str, float] | None]) -> None:
    """Write a recognition submission, whole or not at all. Raises as `recognition_csv`, and StorageError."""
    _write(url, recognition_csv(predictions))


def _rows(url: Url, headers: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Yield per line where it stands, its id and its list; the id checked to be there once."""
    name = os.fspath(url)
    n_columns = 0
    first_seen: dict[str, int] = {}
    for number, raw in enumerate(_read(url).removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        where = f"{name}, line {number}"
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError as error:
            raise LmrError(
                f"{where} is not UTF-8 text",
                got=repr(raw[max(0, error.start - 10) : error.start + 10]),
                fix="save the file as UTF-8; a compressed file must be unpacked first",
            ) from error
        if not line:
            continue
        cells = [cell.strip().strip('"') for cell in line.split(",")]
        if n_columns == 0:
            if ",".join(cells).lower() not in headers:
                raise LmrError(f"{where} is not the header", got=line[:80], fix=f"it should be {headers[0]}")
            n_columns = len(cells)
            continue
        if len(cells) != n_columns or not cells[0]:
            raise LmrError(
                f"{where} does not have an id and {n_columns} columns",
                got=line[:80],
                fix="separate columns by commas, and the ids of a list by spaces",
            )
        if cells[0] in first_seen:
            raise LmrError(
                f"{where}: id {cells[0]} stands there twice",
                got=f"first on line {first_seen[cells[0]]}",
                fix="keep one line per id",
            )
        first_seen[cells[0]] = number
        yield where, cells[0], cells[1]
    if not first_seen:
        raise LmrError(
            f"{name} holds no lines",
            got="an empty file" if n_columns == 0 else "a header and nothing else",
            fix="check that the file was written to its end",
        )


def _answers(cell: str) -> list[str]:
    return [] if cell == "None" else [sys.intern(answer) for answer in cell.split()]


def _check_count(photo_ids: Sequence[str], where: str) -> None:
    if len(photo_ids) > MAX_PREDICTIONS:
        raise LmrError(
            f"{where} has more than {MAX_PREDICTIONS} photos",
            got=str(len(photo_ids)),
            fix=f"keep the {MAX_PREDICTIONS} best; the challenge refuses longer lists",
        )


def _check_ids(row_id: str, ids: Sequence[str]) -> None:
    for one in ids:
        if not one or "," in one or '"' in one or one.split() != [one]:
            raise LmrError(
                f"the line of {row_id} would break the file: {one!r} is no id",
                fix="use ids without spaces, commas and quotes",
            )


def _read(url: Url) -> bytes:
    try:
        fs, path = fsspec.core.url_to_fs(url)
        data: bytes = fs.cat_file(path)
        return data
    except Exception as error:  # each file system raises its own kinds, which share no base
        raise _unreachable("read", url, error) from error


def _write(url: Url, data: bytes) -> None:
    try:
        fs, path = fsspec.core.url_to_fs(url)
        if "file" not in fs.protocol:
            fs.pipe_file(path, data)  # one PUT: whole or absent
            return
        fs.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            fs.pipe_file(temporary, data)
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
    except Exception as error:  # as above
        raise _unreachable("write", url, error) from error


def _unreachable(verb: str, url: Url, error: Exception) -> StorageError:
    return StorageError(
        f"cannot {verb} {os.fspath(url)}",
        got=" ".join(f"{type(error).__name__}: {error}".split())[:300],
        fix="check the path, the URL's scheme (s3://bucket/name, or a path) and the permissions",
    )
