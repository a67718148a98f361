"""The Oxford and Paris protocols: area under precision over recall, with junk taken out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmr.errors import LmrError, SettingsError
from lmr.evaluation.protocols.hits import find_hits

__all__ = ["RankScores", "RevisitedScores", "map_classic", "map_revisited"]

Ids = NDArray[np.int64] | NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class RankScores:
    """Average precision and precision at a few ranks of one Oxford/Paris protocol.

    Attributes
    ----------
    per_query
        (q,) float64, average precision; NaN for a query without right photos, which the means leave out.
    kappas
        The ranks k at which `precision` was taken.
    precision
        (q, len(kappas)) float64, precision over the first k photos once junk is removed; NaN as above.
    """

    per_query: NDArray[np.float64]
    kappas: tuple[int, ...]
    precision: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """MAP: the mean average precision over the queries that count."""
        return float(np.nanmean(self.per_query))

    @property
    def mean_precision(self) -> NDArray[np.float64]:
        """(len(kappas),) float64, mP@k: the mean precision at each k over the queries that count."""
        means: NDArray[np.float64] = np.nanmean(self.precision, axis=0)
        return means


@dataclass(frozen=True, eq=False)
class RevisitedScores:
    """The three protocols of revisited Oxford and Paris; `None` where no query has a right photo."""

    easy: RankScores | None
    medium: RankScores | None
    hard: RankScores | None


def map_revisited(
    rankings: Sequence[ArrayLike],
    ground_truth: Sequence[Mapping[str, ArrayLike]],
    *,
    kappas: Sequence[int] = (1, 5, 10),
) -> RevisitedScores:
    """Score rankings by the easy, medium and hard protocols of revisited Oxford and Paris.

    Easy: the easy photos are right, the hard ones junk. Medium: both are right. Hard: the hard ones are
    right, the easy ones junk. Junk is taken out of a ranking before ranks are counted.

    Average precision is the area under precision over recall by trapezoids, and precision at k is taken over
    min(k, rank of the last hit) photos (`compute_map` of filipradenovic/revisitop; Radenović et al., CVPR
    2018). A query whose list holds none of its right photos scores 0, where the original stops. As in the
    original, a right photo that a list repeats counts again each time, so rankings should not repeat photos.

    Parameters
    ----------
    rankings
        One list of gallery ids per query, best first, all integers or all text: an array (q, k), or lists of
        different lengths. The original wants the transpose.
    ground_truth
        Per query the ids under `easy` and `hard`, and under `junk` where there is any; other keys are not
        read.
    kappas
        The ranks at which precision is taken.

    Raises
    ------
    LmrError
        If the numbers of queries differ, a key is missing, a photo is listed twice for a query, the ids of
        rankings and ground truth are of different kinds, or no protocol has any query with a right photo.
    """
    truths = [_truth(row, truth, ("easy", "hard")) for row, truth in enumerate(ground_truth)]
    scores = RevisitedScores(
        *(
            _rank_scores(
                rankings,
                [np.concatenate([truth[name] for name in right]) for truth in truths],
                [np.concatenate([truth[name] for name in junk]) for truth in truths],
                kappas,
            )
            for right, junk in (
                (("easy",), ("junk", "hard")),
                (("easy", "hard"), ("junk",)),
                (("hard",), ("junk", "easy")),
            )
        )
    )
    if scores.medium is None:
        raise _no_right_photos()
    return scores


def map_classic(
    rankings: Sequence[ArrayLike],
    ground_truth: Sequence[Mapping[str, ArrayLike]],
    *,
    kappas: Sequence[int] = (1, 5, 10),
) -> RankScores:
    """Score rankings by the classic protocol of Oxford 5k and Paris 6k (Philbin et al., CVPR 2007).

    As `map_revisited`, with the right photos of a query under `ok`, and under `junk` those to take out.

    Examples
    --------
    >>> scores = map_classic([[9, 4, 7, 2]], [{"ok": [4, 2], "junk": [9]}], kappas=(1, 2))
    >>> scores.per_query  # 4 at rank 1; 2 at rank 3, between precision 1/2 and 2/3: (1 + 7/12) / 2
    array([0.79166667])
    >>> scores.precision
    array([[1. , 0.5]])
    """
    truths = [_truth(row, truth, ("ok",)) for row, truth in enumerate(ground_truth)]
    scores = _rank_scores(
        rankings, [truth["ok"] for truth in truths], [truth["junk"] for truth in truths], kappas
    )
    if scores is None:
        raise _no_right_photos()
    return scores


def _rank_scores(
    rankings: Sequence[ArrayLike], right: Sequence[Ids], junk: Sequence[Ids], kappas: Sequence[int]
) -> RankScores | None:
    """Score all queries of one protocol; None when none has a right photo."""
    if len(rankings) != len(right):
        raise LmrError(
            "rankings and ground truth are of different numbers of queries",
            got=f"{len(rankings)} rankings, {len(right)} in the ground truth",
            fix="pass one ranking per query, queries as rows",
        )
    if len(kappas) == 0 or min(kappas) < 1:
        raise SettingsError("kappas must be ranks from 1", got=str(tuple(kappas)), fix="use (1, 5, 10)")
    lists = [_as_ids(ranking, f"ranking {row}") for row, ranking in enumerate(rankings)]
    for row, ids in enumerate(lists):
        for known in (right[row], junk[row]):
            if len(known) and len(ids) and known.dtype.kind != ids.dtype.kind:
                raise LmrError(
                    f"ranking {row} and its ground truth name photos differently",
                    got=f"{ids[0]!r} in the ranking, {known[0]!r} in the ground truth",
                    fix="use the same ids in both: integers, or text",
                )
    hits = find_hits(
        (ids.tolist() for ids in lists),
        [ids.tolist() for ids in right],
        [ids.tolist() for ids in junk],
        repeats_count=True,
    )
    if not hits.relevant.any():
        return None
    precision = np.stack([hits.precision_to_last_hit(kappa) for kappa in kappas], axis=1)
    return RankScores(hits.area(), tuple(kappas), precision)


def _truth(row: int, truth: Mapping[str, ArrayLike], required: tuple[str, ...]) -> dict[str, Ids]:
    """Check one query's ground truth, so that each photo has one meaning."""
    for name in required:
        if name not in truth:
            raise LmrError(
                f"the ground truth of query {row} has no list {name!r}",
                got=", ".join(map(repr, truth)) or "nothing",
                fix="map_revisited needs 'easy' and 'hard', map_classic needs 'ok'",
            )
    lists = {name: _as_ids(truth.get(name, ()), f"{name!r} of query {row}") for name in (*required, "junk")}
    seen: dict[object, str] = {}
    for name, ids in lists.items():
        for photo_id in ids.tolist():
            if photo_id in seen:
                raise LmrError(
                    f"the ground truth of query {row} lists photo {photo_id} twice",
                    got=f"in {seen[photo_id]!r} and in {name!r}",
                    fix="a photo is right or junk once",
                )
            seen[photo_id] = name
    return lists


def _as_ids(values: ArrayLike, what: str) -> Ids:
    ids = np.asarray(values)
    if ids.ndim == 1 and ids.size == 0:
        return np.empty(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise LmrError(
            f"{what} is not a list of photo ids",
            got=f"{ids.dtype} of shape {ids.shape}",
            fix="pass one list of integers or one list of text",
        )
    return ids.astype(np.int64) if ids.dtype.kind in "iu" else ids


def _no_right_photos() -> LmrError:
    return LmrError(
        "no query of the ground truth has a right photo, so there is nothing to score",
        fix="check that the ground truth belongs to these queries",
    )
