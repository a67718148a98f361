"""ASMK against the published implementation's scores, and its inverted files searched group by group."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.local_search.asmk import AsmkPart, aggregate, random_rotation
from lmr.retrieval.local_search.asmk_index import (
    AsmkIndex,
    asmk_idf,
    asmk_norms,
    build_asmk,
    entries_per_word,
    join_asmk,
    search_asmk,
)
from lmr.retrieval.local_search.codebook import coarse_quantiser, open_codebook, train_codebook
from tests.support.shared import shared

KEYS = [
    "d128/how_binary",
    "d128/binary_idf",
    "d128/float",
    "d128/float_idf_thr",
    "d40/how_binary",
    "d40/float",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("groups", [1, 5])
def test_scores_of_the_published_implementation(key: str, groups: int) -> None:
    folder = shared("golden/asmk")
    case: dict[str, Any] = {c["key"]: c for c in json.loads((folder / "cases.json").read_text())["cases"]}[
        key
    ]
    with np.load(folder / "asmk.npz") as golden:
        data = {name: golden[name] for name in golden.files if name.startswith(key.split("/")[0] + "/")}
    dimension = key.split("/")[0]
    codebook, tolerance = coarse_quantiser(data[f"{dimension}/centroids"]), 1e-6 if case["binary"] else 1e-5
    photos = data[f"{dimension}/image_of_vector"].astype(np.int64)
    part = aggregate(
        data[f"{dimension}/vectors"],
        photos,
        codebook,
        words_per_descriptor=case["multiple_assignment_db"],
        binary=case["binary"],
    )
    queries = aggregate(
        data[f"{dimension}/queries"],
        data[f"{dimension}/query_of_vector"].astype(np.int64),
        codebook,
        words_per_descriptor=case["multiple_assignment_query"],
        binary=case["binary"],
    )
    first = part.photos == 0
    np.testing.assert_array_equal(part.words[first], data[f"{key}/image0_words"])
    np.testing.assert_allclose(part.codes[first], data[f"{key}/image0_aggregated"], atol=tolerance)

    edges = np.linspace(0, 48, groups + 1).astype(int)
    indexes = [group_of(part, a, b, 64) for a, b in pairwise(edges)]
    entries = np.sum([entries_per_word(index) for index in indexes], axis=0)
    idf = asmk_idf(entries, 48)
    if case["use_idf"]:
        np.testing.assert_allclose(idf, data[f"{key}/idf"], rtol=1e-6)
    rows, scores = search_asmk(
        indexes,
        queries,
        n_queries=8,
        candidates=48,
        alpha=case["alpha"],
        threshold=case["similarity_threshold"],
        idf=idf if case["use_idf"] else None,
    )
    dense = np.zeros((8, 48))
    for query in range(8):
        dense[query, rows[query][rows[query] >= 0]] = scores[query][rows[query] >= 0]
    np.testing.assert_allclose(dense, data[f"{key}/scores"], atol=tolerance)
    np.testing.assert_array_equal(rows[:, :10], data[f"{key}/ranks"][:, :10])


def group_of(part: AsmkPart, first: int, last: int, n_words: int) -> AsmkIndex:
    mask = (part.photos >= first) & (part.photos < last)
    selected = AsmkPart(part.words[mask], part.photos[mask], part.codes[mask])
    return build_asmk(selected, n_words=n_words, photo_rows=np.arange(first, last))


def some(n: int, d: int = 40, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    binary=st.booleans(),
    candidates=st.integers(1, 40),
)
def test_groups_searched_together_equal_one_index(
    seed: int, cuts: list[int], binary: bool, candidates: int
) -> None:
    rng = np.random.default_rng(seed)
    codebook = coarse_quantiser(some(12, seed=1))
    distinct = some(40, seed=seed)
    descriptors = distinct[rng.integers(0, 40, 90)]
    photos = rng.integers(0, 15, 90)  # of 15, some without a feature
    # Photos 15 to 29 repeat photos 0 to 14: every score is tied.
    part = aggregate(
        np.concatenate([descriptors] * 2), np.concatenate([photos, photos + 15]), codebook, binary=binary
    )
    queries = aggregate(
        some(30, seed=seed + 1), rng.integers(0, 6, 30), codebook, words_per_descriptor=3, binary=binary
    )
    whole = group_of(part, 0, 30, 12)
    edges = [0, *sorted(cuts), 30]
    groups = [group_of(part, a, b, 12) for a, b in pairwise(edges)]
    idf = asmk_idf(entries_per_word(whole), 30)

    expected = search_asmk([whole], queries, n_queries=7, candidates=candidates, idf=idf)
    for arrangement in (groups, groups[::-1], [replace(g, norms=asmk_norms(g, idf)) for g in groups]):
        rows, scores = search_asmk(arrangement, queries, n_queries=7, candidates=candidates, idf=idf)
        np.testing.assert_array_equal(rows, expected[0])
        np.testing.assert_array_equal(scores, expected[1])
    assert (expected[0][6] == -1).all()  # query 6 has no feature
    assert (expected[0][:, 0] < 15).all()  # of two equal photos the lower row comes first


def test_a_photo_is_most_similar_to_itself() -> None:
    codebook = coarse_quantiser(some(20, seed=1))
    descriptors, photos = some(300), np.repeat(np.arange(10), 30)
    for binary in (True, False):
        part = aggregate(descriptors, photos, codebook, binary=binary, rotation=random_rotation(40, seed=0))
        rows, scores = search_asmk([build_asmk(part, n_words=20)], part, n_queries=10, candidates=2)
        assert rows[:, 0].tolist() == list(range(10))
        np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)
        assert (scores[:, 1] < 0.9).all()


def test_a_rotation_keeps_angles_and_makes_codes_of_the_wanted_bits() -> None:
    descriptors, codebook = some(50), coarse_quantiser(some(8, seed=1))
    rotation = random_rotation(40, seed=3)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(40), atol=1e-5)
    plain, rotated = (
        aggregate(descriptors, np.zeros(50, np.int64), codebook, binary=False, rotation=r)
        for r in (None, rotation)
    )
    np.testing.assert_allclose(rotated.codes @ rotated.codes.T, plain.codes @ plain.codes.T, atol=1e-5)
    wide = aggregate(
        descriptors, np.zeros(50, np.int64), codebook, rotation=random_rotation(40, seed=3, bits=96)
    )
    assert wide.codes.shape[1] == 3


def test_rows_of_zeros_and_no_descriptors_give_no_words() -> None:
    codebook = coarse_quantiser(some(8, seed=1))
    empty = aggregate(np.zeros((3, 40), np.float32), np.arange(3), codebook)
    assert empty.words.shape == (0,)
    assert empty.codes.shape == (0, 2)
    gallery = build_asmk(aggregate(some(9), np.arange(9), codebook), n_words=8)
    rows, scores = search_asmk([gallery], empty, n_queries=3, candidates=4)
    assert (rows == -1).all()
    assert not scores.any()
    nothing = build_asmk(empty, n_words=8, photo_rows=np.arange(3))
    assert (search_asmk([nothing], aggregate(some(2), np.arange(2), codebook), n_queries=2)[0] == -1).all()


def test_a_word_that_no_photo_has_weighs_nothing() -> None:
    assert asmk_idf(np.array([0, 4, 2]), 4).tolist() == pytest.approx([0, 0, np.log(2) ** 2])


def test_bad_input_is_refused() -> None:
    codebook = coarse_quantiser(some(8, seed=1))
    part = aggregate(some(9), np.arange(9), codebook)
    index = build_asmk(part, n_words=8)

    broken = some(9)
    broken[4, 0] = np.nan
    with pytest.raises(LmrError, match="finite"):
        aggregate(broken, np.arange(9), codebook)
    with pytest.raises(LmrError, match="40 dimensions"):
        aggregate(some(9, d=32), np.arange(9), codebook)
    with pytest.raises(LmrError, match="unit length"):
        aggregate(3 * some(9), np.arange(9), codebook)
    with pytest.raises(LmrError, match="needs its photo"):
        aggregate(some(9), np.arange(8), codebook)
    with pytest.raises(LmrError, match="beyond the codebook"):
        build_asmk(part, n_words=2)
    with pytest.raises(LmrError, match="threshold from 0 to 1"):
        search_asmk([index], part, n_queries=9, threshold=-0.5)
    with pytest.raises(LmrError, match="numbered from 0 to 4"):
        search_asmk([index], part, n_queries=5)
    with pytest.raises(LmrError, match="aggregated alike"):
        search_asmk([index], aggregate(some(9), np.arange(9), codebook, binary=False), n_queries=9)
    with pytest.raises(LmrError, match="does not fit"):
        search_asmk([index], part, n_queries=9, idf=np.ones(7, np.float32))


def test_a_large_codebook_is_searched_by_cells_and_keeps_its_words_together() -> None:
    descriptors = some(20_000, d=8)
    codebook = open_codebook(train_codebook(descriptors, 5000, seed=0))
    again = open_codebook(train_codebook(descriptors, 5000, seed=0))
    words = codebook.reconstruct_n(0, 5000)
    np.testing.assert_array_equal(words, again.reconstruct_n(0, 5000))
    nearest = coarse_quantiser(words[:4096]).search(descriptors[:500], 1)[1][:, 0]  # flat: exact
    exact = (2 - 2 * descriptors[:500] @ words.T + (words**2).sum(1)).argmin(axis=1)
    assert (exact[exact < 4096] == nearest[exact < 4096]).all()
    found = codebook.search(descriptors[:500], 1)[1][:, 0]
    assert (found == exact).mean() > 0.95
    part = aggregate(descriptors[:500], np.zeros(500, np.int64), codebook, words_per_descriptor=5)
    assert 500 < len(part.words) <= 2500
    assert (np.diff(part.words) > 0).all()


def test_parts_join_to_the_file_that_all_at_once_make() -> None:
    codebook = coarse_quantiser(some(8, seed=1))
    photos = np.repeat(np.arange(3, 43, 2), 6)
    whole = aggregate(some(len(photos), seed=2), photos, codebook)
    cuts = [0, 1, 1, 17, 60, len(whole.words)]
    parts = [
        AsmkPart(whole.words[a:b], whole.photos[a:b], whole.codes[a:b])
        for a, b in pairwise(cuts)
    ]
    built, joined = build_asmk(whole, n_words=8), join_asmk(parts, n_words=8)
    for name in ("starts", "photos", "codes", "photo_rows"):
        there = getattr(joined, name)
        assert there.dtype == getattr(built, name).dtype
        np.testing.assert_array_equal(there, getattr(built, name))
    assert len(join_asmk(parts[1:2], n_words=8).photos) == 0
    with pytest.raises(LmrError, match="beyond the codebook"):
        join_asmk(parts, n_words=2)
