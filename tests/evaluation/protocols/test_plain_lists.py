"""Ranks from ids as numbers are those of the ids as texts, and what is not plain is left to texts."""

import random

import numpy as np
import pytest

from lmr.evaluation.protocols import plain_lists
from lmr.evaluation.protocols.hits import KnownRanks, find_hits
from lmr.evaluation.protocols.plain_lists import ranks_in_cells
from lmr.evaluation.protocols.table import evaluate, find_protocol


def by_texts(cell, query, right):
    ids = (cell or "").split()
    if len(ids) < 2 or len(set(ids)) < len(ids) or query in ids:
        return None
    return [rank for rank, one in enumerate(ids, 1) if one in set(right)]


@pytest.mark.parametrize(("width", "most"), [(1, 6), (7, 20), (8, 5), (16, 100), (19, 30), (40, 12)])
def test_ranks_are_those_of_texts(width, most):
    made = random.Random(width)
    # Ids of many lengths that begin alike, so that the bytes behind an id matter.
    gallery = sorted({f"{made.getrandbits(200):050x}"[: made.randint(1, width)] for _ in range(400)})
    queries = [f"q{row}" if made.random() < 0.8 else made.choice(gallery) for row in range(1300)]
    cells, right = [], []
    for _ in queries:
        count = made.randint(0, min(most, len(gallery)))
        ids = made.sample(gallery, count) if made.random() < 0.9 else made.choices(gallery, k=count)
        cells.append(" ".join(ids) if made.random() < 0.98 else None)
        right.append(made.choices(gallery, k=made.randint(0, 4)) + made.choices(ids or ["x"], k=4))
    found = list(ranks_in_cells(cells, queries, right))
    wanted = [by_texts(*three) for three in zip(cells, queries, right, strict=True)]
    assert found == wanted
    assert sum(one is not None and len(one) > 1 for one in found) > 100
    assert sum(one is None for one in found) > 50


def test_equal_numbers_are_no_proof(monkeypatch):
    """Where ids of one letter share a number with others, hits are those of the texts all the same."""
    real = plain_lists._Ids.numbers
    monkeypatch.setattr(plain_lists._Ids, "numbers", lambda ids, longest: real(ids, longest) % np.uint64(7))
    cells, right = [f"{one} {other}" for one in "abcdef" for other in "ghijkl"], [["h", "b", "k"]] * 36
    found = list(ranks_in_cells(cells, ["?"] * 36, right))
    wanted = [by_texts(cell, "?", ["h", "b", "k"]) for cell in cells]
    assert all(one is None or one == other for one, other in zip(found, wanted, strict=True))
    assert {len(one) for one in found if one is not None} == {0, 1, 2}


@pytest.mark.parametrize(
    ("cell", "query", "right"),
    [
        ("a  b", "q", ["a"]),
        ("a " + 65 * "b", "q", ["a"]),
        ("a b", "q", [str(photo) for photo in range(33)]),
        ("a", "q", ["a"]),
        ("", "q", ["a"]),
    ],
    ids=["doubled space", "long id", "many right", "one photo", "no photo"],
)
def test_what_is_not_plain_is_left(cell, query, right):
    assert list(ranks_in_cells([cell], [query], [right])) == [None]


def test_right_photos_and_queries_that_no_list_can_hold():
    cells = ["a b", "? b"]
    assert list(ranks_in_cells(cells, ["é", "my query"], [["b", "ü"], ["ü", "?"]])) == [[2], None]


@pytest.mark.parametrize("protocol", ["map_at_100", "map_at_5", "recall@3"])
def test_scores_and_notices_do_not_depend_on_how_ids_are_compared(protocol):
    made = random.Random(0)
    gallery = [f"{made.getrandbits(64):016x}" for _ in range(300)]
    rows = [(f"q{row}", made.choices(gallery, k=made.randint(0, 40))) for row in range(300)]
    rows[5] = ("q5", ["q5", "q6", gallery[0]])
    rows[6] = ("q6", ["nan"])
    solution = "id,images\n" + "".join(f"{q},{' '.join(made.choices(gallery, k=4))}\n" for q, _ in rows)
    plain = "id,images\n" + "".join(f"{q},{' '.join(ids)}\n" for q, ids in rows)
    chosen = find_protocol(protocol)
    found = evaluate(chosen, plain.encode(), solution.encode())
    # A tab is a space too, and with one in the file every id is compared as text.
    other = evaluate(chosen, plain.replace(" ", "\t", 1).encode(), solution.encode())
    assert found.notices == other.notices
    assert len(found.notices) >= 3
    for name, scores in found.scores.items():
        assert scores.per_query.tobytes() == other.scores[name].per_query.tobytes()
        assert scores.mean > 0


def test_known_ranks_stand_for_a_list():
    found = find_hits([KnownRanks([2, 3]), ["b", "x"]], [["b", "a"], ["b"]])
    assert (found.query.tolist(), found.rank.tolist()) == ([0, 0, 1], [2, 3, 1])
