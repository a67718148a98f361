"""Kaggle's protocols against the golden values of the field's own scorers, and their algebra."""

import doctest
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError, SettingsError
from lmr.evaluation.protocols import revisited, scorers
from lmr.evaluation.protocols.scorers import average_precision_at_100, gap, map_at_100
from tests.support.shared import shared

# The golden cases in which the original's mean runs over queries without right photos, so that ours differs:
# case -> the mean over the queries that have some.
LEFT_OUT = {"empty_solution_not_predicted": 1.0, "empty_solution_predicted": 1.0}


def golden(name):
    return json.loads(shared(f"golden/scorers/{name}").read_text())["cases"]


@pytest.mark.parametrize("module", [scorers, revisited])
def test_worked_examples(module):
    result = doctest.testmod(module)
    assert result.attempted >= 3
    assert result.failed == 0


class TestMapAt100:
    def test_equals_the_golden_values(self):
        seen = set()
        for case in golden("map100_cases.json"):
            seen.add(case["name"])
            arguments = case["predictions"], case["solution"]
            expect = case["expect"]
            if case["name"] == "prediction_not_in_solution":
                assert expect["map"] == {"error": "ValueError"}
                with pytest.raises(LmrError, match="query zz is not in the solution"):
                    map_at_100(*arguments)
                continue
            scores = map_at_100(*arguments, max_predictions=case["max_predictions"])
            assert scores.query_ids == tuple(case["solution"]), case["name"]
            for query_id, ap in zip(scores.query_ids, scores.per_query, strict=True):
                if case["solution"][query_id]:
                    assert ap == pytest.approx(expect["ap"][query_id], abs=1e-12), (case["name"], query_id)
                else:
                    assert np.isnan(ap), (case["name"], query_id)
            if case["name"] in LEFT_OUT:
                assert scores.mean == LEFT_OUT[case["name"]]
                assert expect["map"] in (0.5, {"error": "ZeroDivisionError"})
            else:
                assert scores.mean == pytest.approx(expect["map"], abs=1e-12), case["name"]
        assert seen >= LEFT_OUT.keys() | {"random_100", "duplicates", "more_than_100_relevant"}

    def test_relevant_beyond_100_do_not_lower_a_perfect_list(self):
        relevant = [f"r{n}" for n in range(250)]
        assert map_at_100({"q": relevant[:100]}, {"q": relevant}).mean == pytest.approx(1.0, abs=1e-12)

    def test_a_repeat_uses_up_its_rank_and_earns_nothing(self):
        assert average_precision_at_100(["r", "r", "s"], ["r", "s"]) == pytest.approx((1 + 2 / 3) / 2)
        assert average_precision_at_100(["r"] * 100, ["r", "s"]) == pytest.approx(0.5)

    def test_missing_predictions_score_zero(self):
        scores = map_at_100({"a": ["r"]}, {"a": ["r"], "b": ["s"], "c": []})
        np.testing.assert_array_equal(scores.per_query, [1.0, 0.0, np.nan])
        assert scores.mean == 0.5

    def test_wrong_input_is_named(self):
        with pytest.raises(LmrError, match="no query of the solution has a right photo"):
            map_at_100({"a": ["r"]}, {"a": []})
        with pytest.raises(LmrError, match="nothing to score"):
            map_at_100({}, {})
        with pytest.raises(LmrError, match="prediction of query a is text"):
            map_at_100({"a": "r s t"}, {"a": ["r"]})
        with pytest.raises(LmrError, match="solution of query a is text"):
            map_at_100({"a": ["r"]}, {"a": "r"})
        with pytest.raises(SettingsError, match="max_predictions"):
            map_at_100({"a": ["r"]}, {"a": ["r"]}, max_predictions=0)
        with pytest.raises(LmrError, match="without right photos"):
            average_precision_at_100(["r"], [])

    @settings(max_examples=60, deadline=None)
    @given(
        predicted=st.lists(st.sampled_from("abcdefghij"), max_size=130),
        relevant=st.sets(st.sampled_from("abcdefghijkl"), min_size=1),
    )
    def test_algebra(self, predicted, relevant):
        ap = average_precision_at_100(predicted, sorted(relevant))
        assert 0 <= ap <= 1
        # The definition, spelled out: a hit counts where its photo is first seen among the first 100.
        first = {photo: predicted.index(photo) + 1 for photo in relevant & set(predicted[:100])}
        by_hand = sum(sum(other <= rank for other in first.values()) / rank for rank in first.values()) / min(
            len(relevant), 100
        )
        assert ap == pytest.approx(by_hand, abs=1e-12)
        # Moving the first wrong photo to the end never hurts; what stands after 100 is not read.
        wrong = next((photo for photo in predicted[:100] if photo not in relevant), None)
        if wrong is not None:
            at = predicted.index(wrong)
            assert average_precision_at_100(predicted[:at] + predicted[at + 1 :], sorted(relevant)) >= ap
        full = predicted + ["wrong"] * 100
        assert average_precision_at_100(full[:100] + sorted(relevant), sorted(relevant)) == ap


class TestGap:
    @staticmethod
    def arguments(case):
        return (
            {photo: (str(p["class"]), p["score"]) for photo, p in case["predictions"].items()},
            {photo: [str(label) for label in labels] for photo, labels in case["solution"].items()},
        )

    @pytest.mark.parametrize("ignore", [False, True])
    def test_equals_the_golden_values(self, ignore):
        n_scored = 0
        for case in golden("gap_cases.json"):
            expected = case["expect"]["gap_ignore_non_gt" if ignore else "gap"]
            if isinstance(expected, dict):
                name = {"ZeroDivisionError": "a landmark", "KeyError": "photo zz is not"}[expected["error"]]
                with pytest.raises(LmrError, match=name):
                    gap(*self.arguments(case), ignore_non_landmarks=ignore)
                continue
            scores = gap(*self.arguments(case), ignore_non_landmarks=ignore)
            assert scores.mean == pytest.approx(expected, abs=1e-12), case["name"]
            for photo, given_ in zip(scores.query_ids, scores.per_query, strict=True):
                assert np.isnan(given_) == (not case["solution"][photo])
            n_scored += 1
        assert n_scored >= 8

    def test_ties_go_by_id_as_text(self):
        truth = {"img9": ["a"], "img10": ["a"], "img100": ["a"]}
        scores = gap({"img9": ("a", 1.0), "img100": ("b", 1.0), "img10": ("a", 1.0)}, truth)
        np.testing.assert_allclose(scores.per_query, [2 / 3, 1, 0])

    def test_a_confident_distractor_costs_more_than_a_doubtful_one(self):
        truth = {"dog": [], "tower": ["eiffel"]}
        tower = {"tower": ("eiffel", 0.5)}
        assert gap(tower, truth).mean == 1
        assert gap({**tower, "dog": ("eiffel", 0.4)}, truth).mean == 1
        assert gap({**tower, "dog": ("eiffel", 0.6)}, truth).mean == 0.5
        assert gap({**tower, "dog": ("eiffel", 0.6)}, truth, ignore_non_landmarks=True).mean == 1

    def test_wrong_input_is_named(self):
        with pytest.raises(LmrError, match="confidence of photo a is not a number"):
            gap({"a": ("x", float("nan"))}, {"a": ["x"]})
        with pytest.raises(LmrError, match="solution of photo a is text"):
            gap({"a": ("x", 1.0)}, {"a": "x"})

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from("xyz"), st.sampled_from(["", "x", "y"]), st.integers(-3, 3)),
            min_size=1,
            max_size=20,
        ).filter(lambda rows: any(truth for _, truth, _ in rows))
    )
    def test_only_the_order_of_confidences_matters(self, rows):
        truth = {f"p{n:02d}": [t] if t else [] for n, (_, t, _) in enumerate(rows)}
        predictions = {f"p{n:02d}": (label, float(c)) for n, (label, _, c) in enumerate(rows)}
        score = gap(predictions, truth).mean
        assert 0 <= score <= 1
        stretched = {photo: (label, np.expm1(c)) for photo, (label, c) in predictions.items()}
        assert gap(dict(reversed(stretched.items())), truth).mean == score
        assert gap(predictions, truth, ignore_non_landmarks=True).mean >= score
        # What is least sure and wrong costs nothing; a right name that gets surer never lowers the score.
        below = {**predictions, "zz": ("nothing", min(c for _, c in predictions.values()) - 1)}
        assert gap(below, {**truth, "zz": []}).mean == score
        for photo, (label, confidence) in predictions.items():
            if label in truth[photo]:
                surer = {**predictions, photo: (label, confidence + 1.5)}
                assert gap(surer, truth).mean >= score - 1e-12
