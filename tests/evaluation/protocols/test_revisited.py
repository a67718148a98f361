"""The Oxford and Paris protocols against the golden values of the original, and their algebra."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError, SettingsError
from lmr.evaluation.protocols.revisited import map_classic, map_revisited
from tests.support.shared import shared


def golden():
    folder = shared("golden/scorers")
    cases = json.loads((folder / "revisited_cases.json").read_text())
    with np.load(folder / "revisited_ranks.npz") as arrays:
        ranks = dict(arrays)
    return cases, ranks, json.loads((folder / "classic_expect.json").read_text())


def as_array(values):
    return np.array(values, dtype=float)  # null becomes NaN


def assert_equals(scores, expect):
    exact = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(scores.per_query, as_array(expect["aps"]), **exact)
    np.testing.assert_allclose(scores.precision, as_array(expect["prs"]), **exact)
    np.testing.assert_allclose(scores.mean, expect["map"], **exact)
    np.testing.assert_allclose(scores.mean_precision, expect["mpr"], **exact)


@pytest.mark.parametrize("case", ["main", "top60", "duplicate_hit", "toy"])
@pytest.mark.parametrize("kind", [int, str])
def test_equals_the_golden_values(case, kind):
    cases, ranks, _ = golden()
    case = cases["cases"][case]
    rankings = [[kind(photo) for photo in column] for column in ranks[case["ranks"]].T]
    truth = [{name: [kind(i) for i in ids] for name, ids in query.items()} for query in case["gnd"]]
    scores = map_revisited(rankings, truth, kappas=cases["kappas"])
    assert_equals(scores.easy, case["expect"]["E"])
    assert_equals(scores.medium, case["expect"]["M"])
    assert_equals(scores.hard, case["expect"]["H"])


def test_an_array_with_queries_as_rows_does_as_well():
    cases, ranks, _ = golden()
    case = cases["cases"]["top60"]
    scores = map_revisited(np.ascontiguousarray(ranks[case["ranks"]].T), case["gnd"])
    assert_equals(scores.medium, case["expect"]["M"])
    with pytest.raises(LmrError, match="different numbers of queries"):
        map_revisited(ranks[case["ranks"]], case["gnd"])


def test_a_query_without_any_hit_scores_zero_where_the_original_stops():
    cases, ranks, _ = golden()
    case = cases["cases"]["top20_query_without_any_hit"]
    rankings = ranks[case["ranks"]].T
    scores = map_revisited(rankings, case["gnd"])
    n_without = 0
    for protocol in ("easy", "medium", "hard"):
        of_protocol = getattr(scores, protocol)
        for row, truth in enumerate(case["gnd"]):
            right = truth["easy"] + truth["hard"] if protocol == "medium" else truth[protocol]
            if not len(right):  # nothing to find: left out of the mean, as in the original
                assert np.isnan(of_protocol.per_query[row])
            elif not np.isin(rankings[row], right).any():
                assert of_protocol.per_query[row] == 0
                assert (of_protocol.precision[row] == 0).all()
                n_without += 1
    assert n_without > 0


def test_classic_equals_the_golden_values():
    cases, ranks, expect = golden()
    case = cases["cases"]["main"]
    truth = [{"ok": q["easy"] + q["hard"], "junk": q["junk"]} for q in case["gnd"]]
    del truth[3]["junk"]
    assert_equals(map_classic(ranks[case["ranks"]].T, truth, kappas=cases["kappas"]), expect)


def test_a_protocol_without_queries_is_none():
    scores = map_revisited([[1, 2]], [{"easy": [2], "hard": [], "junk": []}])
    assert scores.hard is None
    assert scores.easy.mean == scores.medium.mean == 0.25  # rank 2: trapezoid between 0 and 1/2


def test_wrong_input_is_named():
    easy = {"easy": [1], "hard": []}
    with pytest.raises(LmrError, match="query 1 has no list 'hard'"):
        map_revisited([[1], [1]], [easy, {"easy": [1]}])
    with pytest.raises(LmrError, match="no query of the ground truth has a right photo"):
        map_revisited([[1]], [{"easy": [], "hard": [], "junk": [1]}])
    with pytest.raises(LmrError, match="nothing to score"):
        map_classic([[1]], [{"ok": []}])
    with pytest.raises(LmrError, match="query 0 lists photo 1 twice"):
        map_revisited([[1]], [{"easy": [1], "hard": [2], "junk": [1]}])
    with pytest.raises(LmrError, match="name photos differently"):
        map_classic([["1", "2"]], [{"ok": [1]}])
    with pytest.raises(LmrError, match="ranking 0 is not a list of photo ids"):
        map_classic([[0.5, 1.5]], [{"ok": [1]}])
    with pytest.raises(LmrError, match="ranking 0 is not a list of photo ids"):
        map_classic(["12"], [{"ok": [1]}])
    with pytest.raises(SettingsError, match="kappas"):
        map_classic([[1]], [{"ok": [1]}], kappas=(0,))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_algebra(data):
    photos = list(range(12))
    ranking = data.draw(st.permutations(photos))[: data.draw(st.integers(0, 12))]
    kinds = data.draw(st.lists(st.sampled_from(["easy", "hard", "junk", ""]), min_size=12, max_size=12))
    truth = {name: [p for p in photos if kinds[p] == name] for name in ("easy", "hard", "junk")}
    if not truth["easy"] + truth["hard"]:
        return
    scores = map_revisited([ranking], [truth])
    for of_protocol in (scores.easy, scores.medium, scores.hard):
        if of_protocol is not None:
            assert 0 <= of_protocol.mean <= 1
            assert (of_protocol.precision >= 0).all()
            assert (of_protocol.precision <= 1).all()
    # Junk changes nothing but the ranks of the rest: taking it out by hand gives the same.
    by_hand = [p for p in ranking if kinds[p] != "junk"]
    without = {**truth, "junk": []}
    assert map_revisited([by_hand], [without]).medium.mean == scores.medium.mean
    as_classic = map_classic([ranking], [{"ok": truth["hard"] + truth["easy"], "junk": truth["junk"]}])
    assert as_classic.mean == scores.medium.mean
