"""What a run is scored by besides its solution: protocols, their ground truth, and published figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmr import storage
from lmr.errors import SettingsError
from lmr.evaluation.protocols.oxford import parse_truths
from lmr.evaluation.protocols.published import parse_figures, shipped_figures
from lmr.evaluation.protocols.table import Protocol, find_protocol
from lmr.runtime.steps import Given
from lmr.steps.both import Both
from lmr.steps.photos.listing import Photos
from lmr.steps.results.protocols import truth_for
from lmr.steps.results.scores import read_solution

__all__ = ["DEEPEST", "Scoring", "depth_for", "published_of", "scoring_of"]

DEEPEST = 100_000
"""The longest ranking that the setting `rank.depth` allows."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What every ranking of a run is scored by besides.

    Attributes
    ----------
    protocols
        Their names.
    truth
        What they are scored by; None without protocols.
    whole
        The names of those that are defined on whole rankings.
    """

    protocols: tuple[str, ...] = ()
    truth: Given | None = None
    whole: tuple[str, ...] = ()


def scoring_of(
    names: Sequence[str],
    photos: Both[Photos],
    *,
    solution: str | None,
    truth: str | None,
    pruned: bool = False,
    recognises: bool = False,
) -> Scoring:
    """Read the ground truth of protocols, and check it against the photos.

    Parameters
    ----------
    names
        The protocols.
    photos
        The photos of the run.
    solution, truth
        URLs of right photos, and of easy, hard and junk ones, where they are given.
    pruned
        Whether these are the first shards only.
    recognises
        Whether the workflow names landmarks instead of ranking photos.

    Raises
    ------
    SettingsError
        If a protocol is unknown, needs another ground truth, or scores something else than rankings.
    LmrError
        If the ground truth is none, or does not belong to these photos.
    """
    names = tuple(dict.fromkeys(names))
    if not names:
        if truth is not None:
            raise SettingsError(
                "a ground truth is given, and no protocol to score by",
                got="--truth without --score",
                fix="add --score revisited-medium, or leave --truth out",
            )
        return Scoring()
    if recognises:
        raise SettingsError(
            "recognition is scored by GAP and accuracy, without being asked",
            got=f"--score {names[0]}",
            fix="leave --score out",
        )
    protocols = [find_protocol(name) for name in names]
    truths: dict[str, dict[str, Sequence[str]]] = {}
    for lists in (_right(protocols, solution), _in_lists(protocols, truth)):
        for query, some in lists.items():
            truths.setdefault(query, {}).update(some)
    whole = tuple(name for name, one in zip(names, protocols, strict=True) if one.whole)
    return Scoring(protocols=names, truth=truth_for(truths, photos, pruned=pruned), whole=whole)


def _right(protocols: Sequence[Protocol], solution: str | None) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Read the solution, for protocols that know right photos only."""
    plain = [one.name for one in protocols if not one.needs]
    if any(one.recognises for one in protocols):
        raise SettingsError(
            "gap scores names of landmarks, and this workflow ranks photos",
            got="--score gap",
            fix="run the workflow recognition",
        )
    if not plain:
        return {}
    if solution is None:
        raise SettingsError(
            f"{plain[0]} needs to know which photos are right", got="no --solution", fix="give --solution"
        )
    return {query: {"right": right} for query, right in read_solution(solution).items()}


def _in_lists(protocols: Sequence[Protocol], truth: str | None) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Read the ground truth of the Oxford and Paris protocols."""
    needs = {one.needs: one.name for one in protocols if one.needs}
    if not needs:
        return {}
    if len(needs) > 1:
        raise SettingsError(
            "one ground truth cannot be both of the classic and of the revisited protocols",
            got=" and ".join(needs.values()),
            fix="run the same command once for each: finished steps are not made again",
        )
    ((lists, name),) = needs.items()
    if truth is None:
        raise SettingsError(
            f"{name} needs to know more than which photos are right",
            got="no --truth",
            fix=f"give --truth a file of the columns id,{','.join(lists)},junk",
        )
    return parse_truths(storage.read(storage.absolute(truth)), truth, needs=lists)


def depth_for(
    scoring: Scoring, settings: Any, users: Sequence[Mapping[str, Any]], gallery: int
) -> int | None:
    """Return how long rankings must be for the protocols; None where they are long enough, or were chosen."""
    rank = getattr(settings, "rank", None)
    chosen = any("depth" in (some.get("rank") or {}) for some in users)
    if not scoring.whole or chosen or rank is None or not hasattr(rank, "depth"):
        return None
    depth = min(gallery, DEEPEST)
    return depth if depth > rank.depth else None


def published_of(data_set: str | None, file: str | None) -> list[dict[str, Any]]:
    """Return the figures that papers print of a data set, as plain values.

    Parameters
    ----------
    data_set
        Its name; None where the photos are of none.
    file
        URL of a file of figures; None: the one that comes along.

    Raises
    ------
    LmrError
        If the file cannot be read, or is none; if there is one without a data set.
    """
    if data_set is None:
        if file is not None:
            raise SettingsError(
                "published figures belong to a data set",
                got="--published without --dataset",
                fix="give --dataset too, or leave --published out",
            )
        return []
    url = shipped_figures() if file is None else storage.absolute(file)
    figures = parse_figures(storage.read(url), url)
    return [dataclasses.asdict(one) for one in figures if one.data_set == data_set]
