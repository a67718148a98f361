"""A score per query with its mean, and the refusals that all scorers share."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["Scores", "first_five", "refuse_nothing_to_score", "refuse_text", "refuse_unknown"]


@dataclass(frozen=True, eq=False)
class Scores:
    """A score per query, and their mean.

    Attributes
    ----------
    query_ids
        The queries of the solution, in its order.
    per_query
        (q,) float64, the score of each query; NaN for a query that the protocol leaves out of the mean.
    """

    query_ids: tuple[str, ...]
    per_query: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The protocol's one figure: the mean over the queries that count."""
        return float(np.nanmean(self.per_query))

    @property
    def counted(self) -> int:
        """The number of queries that count."""
        return int(np.count_nonzero(~np.isnan(self.per_query)))


def first_five(names: Iterable[object]) -> str:
    """Return the first five names as text, with an ellipsis where there are more.

    Examples
    --------
    >>> first_five("abcdefg")
    'a, b, c, d, e …'
    """
    names = list(names)
    return ", ".join(map(str, names[:5])) + (" …" if len(names) > 5 else "")


def refuse_unknown(noun: str, predictions: Mapping[str, object], solution: Mapping[str, object]) -> None:
    """Raise an error if there are predictions for ids that the solution does not have."""
    unknown = [known for known in predictions if known not in solution]
    if unknown:
        rest = f" (and {len(unknown) - 1} others)" if len(unknown) > 1 else ""
        raise LmrError(
            f"{noun} {unknown[0]} is not in the solution{rest}",
            got=f"{len(unknown)} of {len(predictions)} predictions are for others: {first_five(unknown)}",
            fix="score the predictions with the solution of the same query set",
        )


def refuse_text(lists: Mapping[str, Collection[str]], what: str) -> None:
    """Raise an error if a list of ids is one piece of text.

    Text is a collection of its letters: 'a b c' would be read as five ids, and 'b' found in it.
    """
    texts = [row for row, ids in lists.items() if isinstance(ids, str)]
    if texts:
        rest = f" (and {len(texts) - 1} others)" if len(texts) > 1 else ""
        raise LmrError(
            f"{what} {texts[0]}{rest} is text, not a list of ids",
            got=first_five(repr(lists[row])[:40] for row in texts),
            fix="split it into ids",
        )


def refuse_nothing_to_score(per_query: NDArray[np.float64], what: str) -> None:
    """Raise an error if no query counts."""
    if np.isnan(per_query).all():
        raise LmrError(
            f"no query of the solution has {what}, so there is nothing to score",
            fix="check that the solution belongs to this query set",
        )
