"""Compare results: of several runs, or of the settings of one run (`lmr.steps.results.folder.kept`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from lmr import storage
from lmr.errors import LmrError
from lmr.evaluation.pages.compare import Changed, ComparisonPage, Difference, Side, render_comparison
from lmr.evaluation.pages.recognition import Photo
from lmr.evaluation.protocols.kaggle import parse_recognition_submission, parse_submission
from lmr.evaluation.protocols.recognition import gap_inputs, gap_of_draws
from lmr.evaluation.statistics import Comparison, compare
from lmr.evaluation.table_text import cells_of, text_of
from lmr.runtime.steps import Role
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.folder.kept import RESULTS, kept_digests, open_kept
from lmr.steps.results.recognition import small_pictures

__all__ = ["Compared", "compare_results", "opened", "store_comparison"]

HEAD = 8
"""Photos of either list that the page shows of a query."""

SHOWN = 12
"""Queries that were won, and that were lost, on the page."""

_NONE = object()


@dataclass(frozen=True)
class Compared:
    """Results that are compared.

    Attributes
    ----------
    name
        What people read: the run's folder, and the digest where one run has several.
    run
        The record.
    digest
        The name of the folder that keeps them.
    """

    name: str
    run: RunDatasets
    digest: str

    @property
    def folder(self) -> str:
        """Where its files are kept."""
        return storage.join(self.run.root, RESULTS, self.digest)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting, by `step.field`."""
        return _flat(self.run.settings)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Query id to its score after the last stage, NaN where it does not count; empty if unscored."""
        url = storage.join(self.folder, "query_scores.csv")
        if not storage.exists(url):
            return {}
        rows = list(cells_of(text_of(storage.read(url), url), url))[1:]
        return {cells[0]: float(cells[-1]) if cells[-1] else np.nan for _, cells in rows}

    @cached_property
    def submission(self) -> Mapping[str, Any]:
        """What was submitted: lists of photos, or landmark and confidence."""
        url = storage.join(self.folder, "submission.csv")
        read = parse_submission if self.run.recognised is None else parse_recognition_submission
        return read(storage.read(url), url)

    @cached_property
    def rows(self) -> dict[Role, dict[str, int]]:
        """Id to row, of gallery and queries."""
        return {
            role: {one: row for row, one in enumerate(photos.read(0, ["id"]).column("id").to_pylist())}
            for role, photos in self.run.photos.items()
        }

    @property
    def measure(self) -> str:
        """What its scores are."""
        return "mAP@100" if self.run.recognised is None else "GAP"


@dataclass(frozen=True)
class Comparisons:
    """What differs between results.

    Attributes
    ----------
    sides
        The results; all others are compared with the first.
    settings
        The settings that differ: name to the value of each side.
    means
        The score of each side; NaN without one.
    differences
        Each other side's score less the first one's; empty where there are no scores to compare.
    notices
        What cannot be compared, in sentences.
    """

    sides: Sequence[Compared]
    settings: Mapping[str, Sequence[str]]
    means: Sequence[float]
    differences: Mapping[str, Comparison] = field(default_factory=dict)
    notices: Sequence[str] = ()


def opened(roots: Sequence[str]) -> list[Compared]:
    """Open what is compared: the latest results of several runs, or all that one run keeps.

    Raises
    ------
    LmrError
        If a run keeps no results, or there is nothing to compare with.
    """
    found: list[Compared] = []
    for root in roots:
        digests = kept_digests(root)
        if not digests:
            raise LmrError(
                "this run keeps no results to compare",
                got=f"no {storage.join(root, RESULTS)}",
                fix="run its command once more to its end: no finished shard is made again",
            )
        short = root.rstrip("/").rsplit("/", 1)[-1]
        if len(roots) == 1:
            found += [Compared(f"{short} {one}", open_kept(root, one), one) for one in digests]
        else:
            found.append(Compared(short, open_kept(root, digests[0]), digests[0]))
    if len({(one.run.root, one.digest) for one in found}) < 2:
        raise LmrError(
            "there is nothing to compare with",
            got=f"one result: {found[0].name}",
            fix="name another run, or run other settings into the same folder",
        )
    names = [one.name for one in found]
    if len(set(names)) < len(names):  # folders of one name in different places
        found = [Compared(one.run.root, one.run, one.digest) for one in found]
    return found


def compare_results(sides: Sequence[Compared]) -> Comparisons:
    """Compare results: settings that differ, and paired differences of the scores."""
    first = sides[0]
    names = list(dict.fromkeys(name for side in sides for name in side.settings))
    values = {name: [side.settings.get(name, _NONE) for side in sides] for name in names}
    settings = {
        name: ["–" if value is _NONE else _text(value) for value in some]
        for name, some in values.items()
        if any(value != some[0] for value in some)
    }
    differences: dict[str, Comparison] = {}
    notices: list[str] = []
    for side in sides[1:]:
        ids = _counted(first, side)
        unscored = [one.name for one in (side, first) if not one.scores]
        if unscored:
            verb = "has" if len(unscored) == 1 else "have"
            notices.append(
                f"{' and '.join(unscored)} {verb} no scores, for want of a solution: "
                "settings are compared only"
            )
        elif side.measure != first.measure:
            notices.append(f"{side.name} has {side.measure} and {first.name} {first.measure}: not compared")
        elif not ids:
            notices.append(f"{side.name} and {first.name} have no scored query in common: not compared")
        else:
            lost = max(_n_counted(first), _n_counted(side)) - len(ids)
            if lost:
                notices.append(f"{side.name}: {lost:,} queries are scored in one run only, and left out")
            differences[side.name] = _paired(side, first, ids)
    means = [float(np.nanmean(list(side.scores.values()))) if _n_counted(side) else np.nan for side in sides]
    return Comparisons(sides, settings, means, differences, notices)


def store_comparison(found: Comparisons, folder: str) -> str:
    """Write the page of a comparison into a folder, as `index.html`, and return its URL."""
    first = found.sides[0]
    page = ComparisonPage(
        title=", ".join(dict.fromkeys(side.run.root.rstrip("/").rsplit("/", 1)[-1] for side in found.sides)),
        measure=first.measure,
        names=list(found.settings),
        sides=[
            Side(
                name=side.name,
                score=None if np.isnan(mean) else mean,
                settings=[values[i] for values in found.settings.values()],
            )
            for i, (side, mean) in enumerate(zip(found.sides, found.means, strict=True))
        ],
        differences=[
            _difference(first, side, found.differences[side.name])
            for side in found.sides[1:]
            if side.name in found.differences
        ],
    )
    url = storage.join(folder, "index.html")
    storage.put(url, render_comparison(page).encode())
    return url


def _difference(first: Compared, side: Compared, comparison: Comparison) -> Difference:
    gains = {one: side.scores[one] - first.scores[one] for one in _counted(first, side)}
    won = sorted((one for one in gains if gains[one] > 0), key=lambda one: (-gains[one], one))[:SHOWN]
    lost = sorted((one for one in gains if gains[one] < 0), key=lambda one: (gains[one], one))[:SHOWN]
    heads = {(part.name, query): _head(part, query) for part in (first, side) for query in (*won, *lost)}
    queries = _photos(side, "queries", (*won, *lost))
    pictures = {
        part.name: _photos(
            part, "gallery", [photo for query in (*won, *lost) for photo in heads[part.name, query]]
        )
        for part in (first, side)
    }

    def changed(query: str) -> Changed:
        return Changed(
            query=queries[query],
            gain=gains[query],
            before=[pictures[first.name][photo] for photo in heads[first.name, query]],
            after=[pictures[side.name][photo] for photo in heads[side.name, query]],
            says_before=_named(first, query),
            says_after=_named(side, query),
        )

    return Difference(
        name=side.name,
        comparison=comparison,
        won=[changed(query) for query in won],
        lost=[changed(query) for query in lost],
    )


def _head(side: Compared, query: str) -> list[str]:
    found = side.submission.get(query, ())
    return list(found[:HEAD]) if side.run.recognised is None else []


def _named(side: Compared, query: str) -> str:
    if side.run.recognised is None:
        return ""
    named = side.submission.get(query)
    return "no landmark" if named is None else f"{named[0]}, {named[1]:.3f}"


def _photos(side: Compared, role: Role, ids: Sequence[str]) -> dict[str, Photo]:
    """Return photos by id, with pictures where the photo is still known and its shard is there."""
    rows = side.rows[role]
    pictures = small_pictures(side.run, role, [rows[one] for one in ids if one in rows])
    return {one: Photo(name=one, picture=pictures.get(rows.get(one, -1), "")) for one in ids}


def _counted(first: Compared, side: Compared) -> list[str]:
    """Return the queries that count on both sides."""
    return [
        query
        for query, score in first.scores.items()
        if score == score and side.scores.get(query, np.nan) == side.scores.get(query, np.nan)
    ]


def _n_counted(side: Compared) -> int:
    return sum(score == score for score in side.scores.values())


def _paired(side: Compared, first: Compared, ids: Sequence[str]) -> Comparison:
    one, other = (np.array([part.scores[query] for query in ids]) for part in (side, first))
    if side.run.recognised is None:
        return compare(one, other)
    # GAP is no mean over queries: each draw is scored anew, and queries without a landmark take part.
    ordered = [_ordered(part) for part in (side, first)]
    if None in ordered or _truth(side) != _truth(first):
        return compare(one, other)
    both = [partial(gap_of_draws, *found) for found in ordered if found is not None]
    mine, theirs = (np.array([part.scores.get(q, np.nan) for q in _truth(side)]) for part in (side, first))
    mine, theirs = np.nan_to_num(mine), np.nan_to_num(theirs)
    return compare(mine, theirs, statistics=(both[0], both[1]))


def _ordered(side: Compared) -> tuple[Any, Any, Any] | None:
    truth = _truth(side)
    if not truth:
        return None
    return gap_inputs({one: named for one, named in side.submission.items() if one in truth}, truth)


def _truth(side: Compared) -> dict[str, list[str]]:
    parts = side.run.recognised or {}
    if "truth" not in parts or not parts["truth"].present():
        return {}
    rows = parts["truth"].read(0).to_pydict()
    return dict(zip(rows["id"], rows["landmarks"], strict=True))


def _flat(groups: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in groups.items():
        full = f"{above}.{name}" if above else name
        flat |= _flat(value, full) if isinstance(value, Mapping) else {full: value}
    return flat


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
