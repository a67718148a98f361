"""Matches equal those of exact arithmetic and of DELF's recipe, whatever the product's rounding."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.verification.match import match
from tests.support.shared import shared


def unit_rows(n: int, d: int, seed: int, distinct: int | None = None) -> NDArray[np.float32]:
    """Random unit rows; with `distinct`, that many of them, repeated at random: ties everywhere."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(distinct or n, d))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return rows if distinct is None else rows[rng.integers(0, distinct, n)]


def by_definition(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    max_distance: float | None = None,
    max_ratio: float | None = None,
    mutual: bool = False,
) -> list[tuple[int, int]]:
    """The matches, one comparison after another, in float64."""
    table = [[sum_of_products(a, b) for b in gallery] for a in query]
    found = []
    for i, row in enumerate(table):
        if not row:
            continue
        j = max(range(len(row)), key=lambda k: (row[k], -k))
        square = max(2 - 2 * row[j], 0.0)
        if max_distance is not None and not square < max_distance**2:
            continue
        others = row[:j] + row[j + 1 :]
        nearer = bool(others) and square < (max_ratio or 0) ** 2 * max(2 - 2 * max(others), 0.0)
        if max_ratio is not None and not nearer:
            continue
        if mutual and max(range(len(table)), key=lambda k: (table[k][j], -k)) != i:
            continue
        found.append((i, j))
    return found


def sum_of_products(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    products = a.astype(np.float64) * b.astype(np.float64)
    even, odd = 0.0, 0.0
    for k, product in enumerate(products.tolist()):
        if k % 2 == 0:
            even += product
        else:
            odd += product
    return even + odd


@settings(max_examples=60, deadline=None)
@given(
    n1=st.integers(0, 20),
    n2=st.integers(0, 20),
    d=st.integers(1, 9),
    distinct=st.sampled_from([None, 1, 3]),
    max_distance=st.sampled_from([None, 0.5, 1.2]),
    max_ratio=st.sampled_from([None, 0.8, 1.0]),
    mutual=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_the_definition(
    n1: int,
    n2: int,
    d: int,
    distinct: int | None,
    max_distance: float | None,
    max_ratio: float | None,
    mutual: bool,
    seed: int,
) -> None:
    query, gallery = unit_rows(n1, d, seed, distinct), unit_rows(n2, d, seed + (distinct is None), distinct)
    tests: dict[str, Any] = {"max_distance": max_distance, "max_ratio": max_ratio, "mutual": mutual}
    found = match(query, gallery, **tests)
    assert found.dtype == np.int32
    assert [tuple(row) for row in found.tolist()] == by_definition(query, gallery, **tests)


def test_exact_copies_never_pass_the_ratio_test() -> None:
    # Rows whose float32 length is a rounding above 1: the squared distance to themselves comes out below 0.
    rows = unit_rows(2000, 128, 7)
    long = rows[np.einsum("ij,ij->i", rows.astype(np.float64), rows.astype(np.float64)) > 1 + 1e-8]
    assert len(long) > 100
    assert len(match(long, np.repeat(long, 2, axis=0), max_ratio=0.9)) == 0
    # One copy, and others far away, is a match.
    assert len(match(long, long, max_ratio=0.9)) == len(long)


def test_does_not_depend_on_how_the_product_rounds() -> None:
    """Neighbours a rounding apart, matched alone and in company, so by products that round differently."""
    gallery = np.repeat(unit_rows(12, 128, 5), 40, axis=0)
    gallery += np.random.default_rng(1).normal(size=gallery.shape).astype(np.float32) * np.float32(2e-8)
    query = np.concatenate([unit_rows(100, 128, 6), gallery[::5]])
    together = match(query, gallery)
    alone = [match(query[i : i + 1], gallery)[0, 1] for i in range(len(query))]
    assert together[:, 1].tolist() == alone
    backwards = match(query, gallery[::-1])
    assert (len(gallery) - 1 - backwards[:, 1] == together[:, 1]).mean() > 0.8  # true ties go to the first
    plain = (query @ gallery.T).argmax(axis=1)
    assert (plain != together[:, 1]).any()  # the case is hard enough for the test to mean something


def test_a_mutual_match_is_one_to_one() -> None:
    found = match(unit_rows(60, 8, 1), unit_rows(40, 8, 2), mutual=True)
    assert len(found) > 5
    assert len(np.unique(found[:, 1])) == len(found)


def test_the_distance_bound_is_strict() -> None:
    query = np.array([[1, 0]], dtype=np.float32)
    gallery = np.array([[0, 1]], dtype=np.float32)
    assert len(match(query, gallery, max_distance=float(np.nextafter(np.sqrt(2), 2)))) == 1
    assert len(match(query, gallery, max_distance=float(np.nextafter(np.sqrt(2), 1)))) == 0


def test_a_ratio_needs_a_second_neighbour() -> None:
    query = unit_rows(3, 4, 0)
    assert len(match(query, query[:1], max_ratio=0.99)) == 0
    assert match(query, query, max_ratio=0.99).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_rows_that_are_zero_or_not_finite_match_nothing() -> None:
    clean = unit_rows(30, 16, 3)
    query, gallery = clean.copy(), clean.copy()
    query[::3], query[1], gallery[4], gallery[8, 2], gallery[9] = np.nan, 0, 0, np.inf, np.nan
    found = match(query, gallery, max_distance=0.1)
    expected = [i for i in range(30) if i % 3 and i not in (1, 4, 8, 9)]
    assert found.tolist() == [[i, i] for i in expected]


def test_refuses_rows_that_are_not_of_unit_length_and_widths_that_differ() -> None:
    with pytest.raises(LmrError, match="1 of 5 descriptors are not of unit length"):
        match(unit_rows(5, 4, 0) * np.array([1, 1, 1, 2, 1], dtype=np.float32)[:, None], unit_rows(5, 4, 0))
    with pytest.raises(LmrError, match="do not fit"):
        match(unit_rows(5, 4, 0), unit_rows(5, 8, 0))


def test_putative_matches_are_those_of_the_recipe() -> None:
    folder = shared("golden/verification")
    golden, facts = (
        np.load(folder / "features_and_matches.npz"),
        json.loads((folder / "pairs.json").read_text()),
    )
    compared = 0
    for number, pair in enumerate(facts["pairs"]):
        for name, config in facts["configs"].items():
            # There image 2 asks, and the rows are (image 1, image 2).
            found = match(
                golden[f"des/{pair['image_2']}"],
                golden[f"des/{pair['image_1']}"],
                max_distance=config["distance_upper_bound"],
            )
            np.testing.assert_array_equal(found[:, ::-1], golden[f"putative/{name}/{number:02d}"])
            compared += 1
    assert compared == 78
