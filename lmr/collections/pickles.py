"""Ground truth in pickles: read by an allow-list, so that nothing that they name is ever called."""

import io
import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lmr.errors import LmrError

__all__ = ["read_truth_pickle"]

_MOST_BYTES = 100_000_000
_NUMBERS = re.compile(r"[biuf]\d{1,2}")


class _Array:
    """Stands for an array while its pickle is read; holds its numbers, as a list."""

    values: list[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, data = state
        self.fill(data, dtype, shape)

    def fill(self, data: Any, dtype: Any, shape: Any) -> None:
        """Take the numbers from their bytes."""
        if not isinstance(dtype, _Dtype) or not _NUMBERS.fullmatch(dtype.code):
            raise ValueError("an array of something else than numbers")
        raw = data.encode("latin1") if isinstance(data, str) else data
        numbers = np.frombuffer(raw, np.dtype(dtype.order + dtype.code))
        if len(shape) > 1 and numbers.size > max(shape):
            raise ValueError("an array of several axes")
        self.values = numbers.tolist()


class _Dtype:
    """Stands for a dtype: its code and order of bytes."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1]) if str(state[1]) in "<>=" else "="


def _array(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, _: Any) -> _Array:
    array = _Array()
    array.fill(data, dtype, shape)
    return array


def _no_bytes() -> bytes:
    return b""


def _scalar(dtype: _Dtype, data: Any) -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not _NUMBERS.fullmatch(dtype.code):
        raise ValueError("a scalar that is no number")
    return np.frombuffer(raw, np.dtype(dtype.order + dtype.code), 1)[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text in {encoding}")
    return text.encode("latin1")


_KNOWN: dict[str, Any] = {
    **{f"numpy.{core}.multiarray _reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": _from_buffer for core in ("core", "_core")},
    "numpy ndarray": _Array,
    "numpy dtype": _Dtype,
    "_codecs encode": _encode,
    "__builtin__ bytes": _no_bytes,
}
"""What a pickle of arrays names, and what stands for it here; all of it is our own."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return our stand-in for what a pickle names; refuse everything else."""
        try:
            return _KNOWN[f"{module} {name}"]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


class _Refused(Exception):
    pass


def read_truth_pickle(data: bytes, name: str) -> dict[str, Any]:
    """Read the ground truth of revisited Oxford or Paris as plain lists.

    Parameters
    ----------
    data
        The bytes of `gnd_roxford5k.pkl`, or of a file of the same form.
    name
        What errors call it.

    Returns
    -------
    `imlist` and `qimlist` (names), and `gnd`: per query `easy`, `hard`, `junk` (numbers of `imlist`), `bbx`
    (left, top, right, bottom, pixels).

    Raises
    ------
    LmrError
        If it is damaged, names code other than that of arrays, or is of another form.
    """
    if len(data) > _MOST_BYTES:
        raise LmrError(f"{name} is too large for a ground truth", got=f"{len(data):,} bytes", fix=_FIX)
    try:
        found = _Reader(io.BytesIO(data), encoding="latin1").load()
    except _Refused as refused:
        raise LmrError(
            f"{name} names code that no ground truth needs; it was not run", got=refused.args[0], fix=_FIX
        ) from refused
    except Exception as error:  # a pickle's reader raises whatever the bytes lead it to
        raise LmrError(
            f"{name} is damaged", got=f"{type(error).__name__}: {error}"[:200], fix=_FIX
        ) from error
    return _checked(found, name)


_FIX = "delete it, and fetch it again from its publisher"


def _checked(found: Any, name: str) -> dict[str, Any]:
    try:
        names = {key: [str(one) for one in found[key]] for key in ("imlist", "qimlist")}
        gnd = [_lists(one, len(names["imlist"])) for one in found["gnd"]]
        if len(gnd) != len(names["qimlist"]):
            raise ValueError(f"{len(gnd)} lists for {len(names['qimlist'])} queries")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise LmrError(
            f"{name} is no ground truth of this form", got=f"{type(error).__name__}: {error}"[:200], fix=_FIX
        ) from error
    return {**names, "gnd": gnd}


def _lists(one: Mapping[str, Any], photos: int) -> dict[str, list[Any]]:
    lists: dict[str, list[Any]] = {
        key: [int(number) for number in _plain(one.get(key, []))] for key in ("easy", "hard", "junk")
    }
    wrong = [number for numbers in lists.values() for number in numbers if not 0 <= number < photos]
    if wrong:
        raise ValueError(f"photo {wrong[0]} of {photos}")
    lists["bbx"] = [float(number) for number in _plain(one["bbx"])]
    if len(lists["bbx"]) != 4:
        raise ValueError(f"a box of {len(lists['bbx'])} numbers")
    return lists


def _plain(value: Any) -> list[Any]:
    return value.values if isinstance(value, _Array) else list(value)
