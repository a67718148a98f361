"""An index that is merged of runs is, to the byte, the one that faiss makes in memory."""

import io
from typing import Any
from unittest import mock

import faiss
import numpy as np
import pytest

from lmr.errors import LmrError
from lmr.retrieval.local_search import filling
from lmr.retrieval.local_search.inverted_file import build_index_of, open_index, train_quantiser

RNG = np.random.default_rng(3)
ROWS = RNG.normal(size=(4000, 16)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
ROWS[7] = 0  # without texture: left out
PHOTOS = np.sort(RNG.integers(0, 300, len(ROWS)))
TRAINED = {code: train_quantiser(ROWS[100:], lists=64, code_bytes=code, seed=1) for code in (None, 8)}


def by_faiss(trained: bytes, descriptors: Any, photos: Any) -> bytes:
    index = open_index(trained)
    used = descriptors.any(axis=1)
    index.add_with_ids(descriptors[used], photos[used])
    written = io.BytesIO()
    faiss.write_index(index, faiss.PyCallbackIOWriter(written.write))  # type: ignore[attr-defined]
    return written.getvalue()


@pytest.mark.parametrize("run_rows", [50, 999, filling.RUN_ROWS])
@pytest.mark.parametrize("count", [0, 20, 4000])  # few of the lists filled, and nearly all
@pytest.mark.parametrize("code_bytes", [None, 8])
def test_it_is_the_file_that_faiss_writes(code_bytes: int | None, count: int, run_rows: int) -> None:
    trained, half = TRAINED[code_bytes], count // 2
    parts = [(ROWS[:half], PHOTOS[:half]), (ROWS[half:count], PHOTOS[half:count])]
    with mock.patch.object(filling, "RUN_ROWS", run_rows):
        assert build_index_of(trained, parts) == by_faiss(trained, ROWS[:count], PHOTOS[:count])


def test_another_format_is_refused() -> None:
    trained = TRAINED[None]
    index = open_index(trained)
    written = faiss.serialize_index(index)
    with (
        mock.patch.object(filling.faiss, "serialize_index", return_value=written[:-1]),
        pytest.raises(LmrError, match=r"format that is not known here\ngot: faiss \d"),
    ):
        next(filling.merged(index, []))
