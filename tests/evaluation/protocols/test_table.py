"""Every protocol of the table: golden values through `evaluate`, algebra, agreement with trec_eval."""

import doctest
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError, SettingsError
from lmr.evaluation import scores
from lmr.evaluation.protocols import hits as hits_module
from lmr.evaluation.protocols import oxford, recognition
from lmr.evaluation.protocols import table as protocols
from lmr.evaluation.protocols.hits import find_hits
from lmr.evaluation.protocols.kaggle import recognition_csv
from lmr.evaluation.protocols.table import METRICS, PROTOCOLS, evaluate, find_protocol, paired
from tests.support.shared import shared

GALLERY = [f"p{n}" for n in range(12)]
rankings = st.lists(st.sampled_from(GALLERY), unique=True, max_size=12)
truths = st.sets(st.sampled_from(GALLERY), min_size=1)
RANKED = ("map_at_100", "map_at_5", "map", "mp@3", "recall@3", "precision@3", "hit_rate@3")


def csv(lists, header="id,images"):
    return "\n".join([header, *(f"{query},{' '.join(photos)}" for query, photos in lists.items())]).encode()


def measure(name, ranking, right):
    kind, _, k = name.partition("@")
    metric = METRICS[f"{kind}@k" if k else name]
    found = find_hits([ranking], [right], repeats_count=metric.repeats_count)
    return metric.function(found, int(k or 0))[0]


@pytest.mark.parametrize("module", [hits_module, protocols, recognition, scores])
def test_worked_examples(module):
    result = doctest.testmod(module)
    assert result.attempted >= 1
    assert result.failed == 0


def test_every_name_tells_its_denominator_and_its_ties():
    for protocol in PROTOCOLS.values():
        assert "over" in protocol.says
        assert "mean over" in protocol.says
        assert "ties: " in protocol.says
        assert protocol.solution in protocol.says
    for name in ("recall@0", "recall", "recall@x", "ndcg@5", "recall@5,precision"):
        with pytest.raises(SettingsError, match="unknown metric"):
            find_protocol("map_at_100", [name])
    for name in ("map", "mp@5", "revisited"):
        with pytest.raises(SettingsError, match="unknown protocol") as error:
            find_protocol(name)
        assert "revisited-medium" in error.value.fix
    assert find_protocol("recall@1,5").metrics == ("recall@1", "recall@5")
    assert find_protocol("map_at_5", ["hit_rate@1,2", "map"]).metrics[1:] == (
        "hit_rate@1",
        "hit_rate@2",
        "map",
    )


@pytest.mark.parametrize("case", ["main", "top60", "duplicate_hit", "toy"])
@pytest.mark.parametrize("form", ["csv", "json", "revisitop"])
def test_revisited_files_give_the_golden_values(case, form):
    folder = shared("golden/scorers")
    cases = json.loads((folder / "revisited_cases.json").read_text())
    with np.load(folder / "revisited_ranks.npz") as arrays:
        ranks = arrays[cases["cases"][case]["ranks"]]
    case = cases["cases"][case]
    queries = [f"q{n}" for n in range(len(case["gnd"]))]
    lists = [
        {key: [f"p{i}" for i in truth.get(key, ())] for key in ("easy", "hard", "junk")}
        for truth in case["gnd"]
    ]
    submission = csv({q: [f"p{i}" for i in column] for q, column in zip(queries, ranks.T, strict=True)})
    if form == "csv":
        rows = (
            f"{q},{','.join(' '.join(x) for x in truth.values())}"
            for q, truth in zip(queries, lists, strict=True)
        )
        solution = "\n".join(["id,easy,hard,junk", *rows]).encode()
    elif form == "json":
        solution = json.dumps(dict(zip(queries, lists, strict=True))).encode()
    else:
        names = [f"p{n}" for n in range(int(ranks.max()) + 1)]
        names += [f"p{n}" for n in range(len(names), 2000)]
        solution = json.dumps({"imlist": names, "qimlist": queries, "gnd": case["gnd"]}).encode()
    for name, letter in (("easy", "E"), ("medium", "M"), ("hard", "H")):
        found = evaluate(find_protocol(f"revisited-{name}"), submission, solution)
        expect = case["expect"][letter]
        assert found.scores["map"].mean == pytest.approx(expect["map"], abs=1e-12)
        means = [found.scores[f"mp@{k}"].mean for k in (1, 5, 10)]
        assert means == pytest.approx(expect["mpr"], abs=1e-12)


def test_classic_files_give_the_golden_value_with_good_joined_to_ok():
    folder = shared("golden/scorers")
    case = json.loads((folder / "revisited_cases.json").read_text())["cases"]["main"]
    expect = json.loads((folder / "classic_expect.json").read_text())
    with np.load(folder / "revisited_ranks.npz") as arrays:
        ranks = arrays[case["ranks"]]
    submission = csv({f"q{n}": map(str, column) for n, column in enumerate(ranks.T)})
    truth = {
        f"q{n}": {"good": q["easy"], "ok": q["hard"], "junk": q["junk"] if n != 3 else []}
        for n, q in enumerate(case["gnd"])
    }
    rows = (
        f"{q},{','.join(' '.join(map(str, ids)) for ids in lists.values())}" for q, lists in truth.items()
    )
    for solution in (json.dumps(truth).encode(), "\n".join(["id,good,ok,junk", *rows]).encode()):
        found = evaluate(find_protocol("classic"), submission, solution)
        assert found.scores["map"].mean == pytest.approx(expect["map"], abs=1e-12)


def test_recognition_files_give_the_golden_values():
    n_scored = 0
    for case in json.loads(shared("golden/scorers/gap_cases.json").read_text())["cases"]:
        named = {photo: (str(p["class"]), p["score"]) for photo, p in case["predictions"].items()}
        truth = {photo: [str(label) for label in labels] for photo, labels in case["solution"].items()}
        expect = case["expect"]
        if isinstance(expect["gap"], dict) or not recognition.accuracy(named, truth).mean:
            continue
        assert recognition.accuracy(named, truth).mean == pytest.approx(expect["top1"], abs=1e-12)
        found = evaluate(find_protocol("gap"), recognition_csv(named), csv(truth, "id,landmarks"))
        assert found.scores["gap"].mean == pytest.approx(expect["gap"], abs=1e-12)
        assert found.scores["accuracy"].mean == pytest.approx(expect["top1"], abs=1e-12)
        assert found.intervals["gap"].value == pytest.approx(expect["gap"], abs=1e-12)
        n_scored += 1
    assert n_scored >= 6


def test_resampled_gap_is_gap_of_the_resampled_photos():
    rng = np.random.default_rng(0)
    photos = [f"p{n:02d}" for n in range(20)]
    truth = {p: [str(rng.integers(3))] if rng.random() < 0.7 else [] for p in photos}
    named = {p: (str(rng.integers(3)), float(rng.random())) for p in photos[:16]}
    ordered = recognition.gap_inputs(named, truth)
    weights = rng.multinomial(20, np.full(20, 1 / 20), size=5).astype(float)
    for row, found in zip(weights, recognition.gap_of_draws(*ordered, weights), strict=True):
        copies = [(p, c) for p, n in zip(photos, row, strict=True) for c in range(int(n))]
        again = {f"{p}-{c}": truth[p] for p, c in copies}
        # Copies of a photo keep its confidence and so its place, beside one another.
        guesses = {f"{p}-{c}": named[p] for p, c in copies if p in named}
        assert found == pytest.approx(recognition.gap(guesses, again).mean, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(ranking=rankings, right=truths, data=st.data())
@pytest.mark.parametrize("name", RANKED)
def test_algebra(name, ranking, right, data):
    value = measure(name, ranking, right)
    assert 0 <= value <= 1
    # What follows the list and is not right changes nothing, but for precision to the last hit neither.
    assert measure(name, [*ranking, "x", "y"], right) == value
    # The order of wrong photos among one another does not matter, nor do their names.
    assert measure(name, [p if p in right else f"other {p}" for p in ranking], right) == value
    # A right photo that changes places with a wrong one before it never lowers the score.
    worse = [(i, j) for j, p in enumerate(ranking) if p in right for i in range(j) if ranking[i] not in right]
    if worse and name != "mp@3":  # revisitop's depth ends at the last hit, so that mP@k may fall
        i, j = data.draw(st.sampled_from(worse))
        better = list(ranking)
        better[i], better[j] = better[j], better[i]
        assert measure(name, better, right) >= value - 1e-12


@settings(max_examples=60, deadline=None)
@given(ranking=rankings, right=truths, junk=st.sets(st.sampled_from(GALLERY)))
def test_junk_is_taken_out_before_ranks_are_counted(ranking, right, junk):
    junk -= right
    found = find_hits([ranking], [right], [junk])
    by_hand = find_hits([[photo for photo in ranking if photo not in junk]], [right])
    np.testing.assert_array_equal(found.rank, by_hand.rank)


@settings(max_examples=60, deadline=None)
@given(lists=st.lists(st.tuples(rankings, truths), min_size=1, max_size=5))
def test_agrees_with_trec_eval_where_definitions_are_the_same(lists):
    trec = pytest.importorskip("pytrec_eval")
    names = ("map_cut.5,100", "recall.3,5", "P.3,5", "success.1,5")
    truth = {f"q{n}": dict.fromkeys(right, 1) for n, (_, right) in enumerate(lists)}
    run = {f"q{n}": {p: -float(rank) for rank, p in enumerate(r)} for n, (r, _) in enumerate(lists)}
    theirs = trec.RelevanceEvaluator(truth, set(names)).evaluate(run)
    pairs = {"map_at_5": "map_cut_5", "recall@3": "recall_3", "recall@5": "recall_5", "precision@3": "P_3"}
    pairs["map_at_100"] = "map_cut_100"  # fewer right photos than 100
    pairs |= {"precision@5": "P_5", "hit_rate@1": "success_1", "hit_rate@5": "success_5"}
    for n, (ranking, right) in enumerate(lists):
        for ours, their in pairs.items():
            if ranking:  # trec_eval leaves out what it finds no list for
                assert measure(ours, ranking, right) == pytest.approx(theirs[f"q{n}"][their], abs=1e-12)


def test_two_submissions_are_compared_query_by_query():
    solution = csv({"a": ["x"], "b": ["y"], "c": ["z"], "none": []})
    first = evaluate(find_protocol("map_at_100"), csv({"a": ["x"], "b": ["y"], "c": ["w"]}), solution)
    second = evaluate(find_protocol("map_at_100"), csv({"a": ["x"], "b": ["w", "y"], "c": ["w"]}), solution)
    found = paired(first, second)["map_at_100"]
    assert found.difference.value == pytest.approx(0.5 / 3)
    assert (found.won, found.lost, found.tied) == (1, 0, 2)
    assert found.p_value == 1.0  # one query of three that differs may as well be chance


def test_wrong_truths_are_named():
    good = csv({"q": ["a"]})
    for solution, message in (
        (b"id,images\nq,a\n", "is not the header"),
        (b'{"q": {"easy": ["a"]}}', "lacks the lists easy and hard for 1 of 1 queries"),
        (b'{"q": ', "is not whole JSON"),
        (b"{}", "lacks the lists"),
        (b'{"q": {"easy": ["a"], "hard": ["a"]}}', "lists 1 photos twice for a query"),
        (b"id,easy,hard,junk\nq,a,,a\n", "lists 1 photos twice for a query"),
        (b"\x80\x04\x95", "a Python pickle"),
        (b'{"imlist": ["a"], "qimlist": ["q"], "gnd": [{"easy": [5], "hard": []}]}', "does not hold photos"),
    ):
        with pytest.raises(LmrError, match=message) as error:
            evaluate(find_protocol("revisited-medium"), good, solution)
        assert error.value.fix
    assert oxford.parse_truths(b"id,easy,hard\nq,a b,\n", needs=("easy", "hard"))["q"]["junk"] == []
    with pytest.raises(LmrError, match="nothing to score"):
        evaluate(find_protocol("revisited-hard"), good, b"id,easy,hard,junk\nq,a,,\n")
