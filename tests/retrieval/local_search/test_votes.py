"""Voting against a plain loop, and its bad input."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.local_search.votes import inverse_frequency, vote


def by_loop(
    query_of_feature: NDArray[np.int64],
    distances: NDArray[np.float32],
    photo_rows: NDArray[np.int32],
    n_queries: int,
    words: NDArray[np.int32],
    burst: float,
    idf: NDArray[np.float32],
) -> list[dict[int, float]]:
    bursts: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for f, query in enumerate(query_of_feature):
        found = [
            (float(d) ** 0.5, int(p)) for d, p in zip(distances[f], photo_rows[f], strict=True) if p >= 0
        ]
        voted = set()
        for length, photo in found:
            if photo not in voted:
                voted.add(photo)
                bursts[int(query), photo, int(words[f])].append(
                    (found[-1][0] - length) * float(idf[words[f]])
                )
    votes: list[dict[int, float]] = [defaultdict(float) for _ in range(n_queries)]
    for (query, photo, _), weights in bursts.items():
        norm = max(weights) if burst == 1 else sum(w ** (1 / (1 - burst)) for w in weights) ** (1 - burst)
        votes[query][photo] += norm
    return votes


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    features=st.integers(0, 40),
    k=st.integers(1, 6),
    burst=st.sampled_from([0, 0.5, 1]),
)
def test_votes_equal_a_plain_loop(seed: int, features: int, k: int, burst: float) -> None:
    rng = np.random.default_rng(seed)
    queries = np.sort(rng.integers(0, 5, features))  # some of the 6 queries have no feature
    distances = np.sort(rng.uniform(0, 2, (features, k)).astype(np.float32), axis=1)
    rows = rng.integers(0, 8, (features, k)).astype(np.int32)
    missing = np.arange(k) >= rng.integers(0, k + 1, features)[:, None]
    distances[missing], rows[missing] = np.inf, -1
    words = rng.integers(0, 4, features).astype(np.int32)
    idf = rng.uniform(0.5, 2, 4).astype(np.float32)

    best, votes = vote(queries, distances, rows, n_queries=6, candidates=5, words=words, burst=burst, idf=idf)
    for query, expected in enumerate(by_loop(queries, distances, rows, 6, words, burst, idf)):
        kept = best[query] >= 0
        assert kept.sum() == min(5, len(expected))
        assert not votes[query, ~kept].any()
        np.testing.assert_allclose(votes[query, kept], [expected[p] for p in best[query, kept]], atol=1e-5)
        left_out = [v for p, v in expected.items() if p not in best[query]]
        assert not left_out or max(left_out) <= votes[query, kept].min() + 1e-5
        assert (np.diff(votes[query, kept]) <= 0).all()


def test_a_worked_example() -> None:
    # Two features; the second sees photo 4 twice, and only its nearer neighbour there counts.
    distances = np.array([[0.04, 0.16, 0.25], [0.01, 0.09, 0.36]], np.float32)
    rows = np.array([[4, 2, 9], [4, 4, 2]], np.int32)
    best, votes = vote(np.array([1, 1]), distances, rows, n_queries=2, candidates=4)
    assert best.tolist() == [[-1, -1, -1, -1], [4, 2, 9, -1]]
    np.testing.assert_allclose(votes[1], [0.3 + 0.5, 0.1, 0, 0], atol=1e-6)


def test_ties_go_to_the_lower_row_and_the_block_does_not_matter() -> None:
    distances = np.tile(np.array([[0.1, 0.1, 0.5]], np.float32), (4, 1))
    rows = np.tile(np.array([[7, 3, 8]], np.int32), (4, 1))
    queries = np.array([0, 0, 1, 1])
    best, votes = vote(queries, distances, rows, n_queries=2, candidates=3)
    assert best.tolist() == [[3, 7, 8], [3, 7, 8]]
    alone = vote(queries[:2], distances[:2], rows[:2], n_queries=1, candidates=3)
    np.testing.assert_array_equal(alone[1][0], votes[1])


def test_a_burst_counts_less_than_independent_votes() -> None:
    distances = np.array([[0.01, 1.0]] * 6, np.float32)
    rows = np.array([[0, 9]] * 3 + [[1, 9]] * 3, np.int32)
    words = np.array([5, 5, 5, 1, 2, 3], np.int32)
    queries = np.zeros(6, np.int64)
    best, votes = vote(queries, distances, rows, n_queries=1, candidates=2, words=words)
    assert best[0].tolist() == [1, 0]
    assert votes[0, 0] == pytest.approx(votes[0, 1] * 3**0.5)


@pytest.mark.parametrize("burst", [0.0, 0.5, 0.9, 1.0])
def test_another_vote_never_takes_votes_away(burst: float) -> None:
    # Photo 0 gets a strong vote, then more of the same word: of no weight, of little, of the same.
    for more in (1.0, 0.9, 0.01):
        distances = np.array([[0.01, 1.0], [more, 1.0]], np.float32)
        rows = np.array([[0, 9], [0, 8]], np.int32)
        words = np.array([5, 5], np.int32)
        alone = vote(
            np.zeros(1, np.int64), distances[:1], rows[:1], n_queries=1, words=words[:1], burst=burst
        )[1][0, 0]
        both = vote(np.zeros(2, np.int64), distances, rows, n_queries=1, words=words, burst=burst)[1][0, 0]
        assert both >= alone
        if more == 1.0:
            assert both == alone


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), burst=st.sampled_from([0, 0.5, 1]))
def test_the_numbering_of_photos_does_not_matter(seed: int, burst: float) -> None:
    rng = np.random.default_rng(seed)
    distances = np.sort(rng.integers(0, 6, (30, 5)).astype(np.float32) / 6, axis=1)  # many ties
    rows = rng.integers(0, 12, (30, 5)).astype(np.int32)
    queries, words = np.sort(rng.integers(0, 2, 30)), rng.integers(0, 4, 30).astype(np.int32)
    floors = rng.uniform(0, 1, 30).astype(np.float32)
    number = rng.permutation(12).astype(np.int32)

    def votes_of(photo_rows: NDArray[np.int32]) -> list[dict[int, float]]:
        best, votes = vote(
            *(queries, distances, photo_rows),
            n_queries=2,
            candidates=12,
            words=words,
            burst=burst,
            background=floors,
        )
        lists = zip(best, votes, strict=True)
        return [
            dict(zip(row[row >= 0].tolist(), some[row >= 0].tolist(), strict=True)) for row, some in lists
        ]

    for before, after in zip(votes_of(rows), votes_of(number[rows]), strict=True):
        assert {int(number[photo]): votes for photo, votes in before.items()} == after


def test_a_background_raises_the_votes_of_a_feature_whose_neighbours_are_all_near() -> None:
    distances, rows = np.array([[0.01, 0.04]], np.float32), np.array([[3, 4]], np.int32)
    best, votes = vote(
        np.zeros(1, np.int64), distances, rows, n_queries=1, background=np.array([0.5], np.float32)
    )
    np.testing.assert_allclose(votes[0, :2], [0.4, 0.3], atol=1e-6)
    # Never below its own last neighbour.
    low = vote(np.zeros(1, np.int64), distances, rows, n_queries=1, background=np.array([0.1], np.float32))
    np.testing.assert_allclose(low[1][0, :2], [0.1, 0], atol=1e-6)
    assert best[0, :2].tolist() == [3, 4]


def test_words_in_many_photos_weigh_less() -> None:
    weights = inverse_frequency(np.array([1000, 10, 0]))
    assert weights[0] < weights[1] < weights[2]
    assert np.isfinite(weights).all()


def test_bad_input_is_refused() -> None:
    distances, rows = np.ones((2, 3), np.float32), np.ones((2, 3), np.int32)
    queries = np.array([0, 1])
    with pytest.raises(LmrError, match="list of neighbours"):
        vote(queries[:1], distances, rows, n_queries=2)
    with pytest.raises(LmrError, match="grouped by query"):
        vote(queries[::-1], distances, rows, n_queries=2)
    with pytest.raises(LmrError, match="grouped by query"):
        vote(queries, distances, rows, n_queries=1)
    with pytest.raises(LmrError, match="needs a word"):
        vote(queries, distances, rows, n_queries=2, words=np.zeros(3, np.int32))
    with pytest.raises(LmrError, match="burst lies between 0 and 1"):
        vote(queries, distances, rows, n_queries=2, burst=1.5)
    with pytest.raises(LmrError, match="finite background"):
        vote(queries, distances, rows, n_queries=2, background=np.array([1, np.nan], np.float32))
    with pytest.raises(LmrError, match="no words were given"):
        vote(queries, distances, rows, n_queries=2, idf=np.ones(3, np.float32))
