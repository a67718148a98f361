"""Do these predictions belong to this solution? Asked before any score is taken.

A score says nothing of ids that are spelled differently: it is low, or 0.0000. So the ids are compared
first. What is odd becomes a notice with a count and the first five offenders; where no prediction can be
right, it is an error.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat

from lmr.errors import LmrError
from lmr.evaluation.protocols.hits import KnownRanks
from lmr.evaluation.protocols.kaggle import NOTHING, RankedLists
from lmr.evaluation.protocols.plain_lists import ranks_in_cells
from lmr.evaluation.scores import first_five

__all__ = ["RankingCheck", "check_rankings", "check_recognition", "plain_spelling"]

_SUFFIX = re.compile(r"\.(jpe?g|jfif|png|webp|tiff?|bmp|gif|avif|heic|heif)$")
_WHOLE_NUMBER = re.compile(r"[0-9]+(\.0+)?")

_LISTS_LOOKED_AT = 2_000
"""Lists in which spellings, and queries among the photos, are looked for: such faults concern all lists."""

Rankings = Mapping[str, Sequence[str]]


class RankingCheck:
    """Compares the ids of ranked lists with those of a solution.

    What concerns all lists is looked for at once; what may be wrong with any one of them, while they pass on
    their way to be scored. So each list is made once.

    Parameters
    ----------
    predictions
        Query id to gallery ids, best first.
    right
        Query id to its right photos.
    queries_in_gallery
        Whether the protocol's queries are photos of its gallery, so that they may stand in lists.
    junk
        Whether there are photos that are taken out of the lists, so that these must be known whole.

    Raises
    ------
    LmrError
        If no prediction is for a query of the solution, or no list holds any photo that is right for a query.
    """

    def __init__(
        self,
        predictions: Rankings,
        right: Mapping[str, Collection[str]],
        *,
        queries_in_gallery: bool = False,
        junk: bool = False,
    ) -> None:
        self._predictions, self._right = predictions, right
        self._queries_in_gallery, self._junk = queries_in_gallery, junk
        self._repeating: set[str] = set()
        self._words: dict[str, str] = {}
        self._own: set[str] = set()
        counted = {query for query, ids in right.items() if ids}
        self._first = _check_ids("query", "queries", predictions, right, counted)
        scored = [query for query in predictions if query in right]
        looked = scored[:_LISTS_LOOKED_AT]
        named = set(chain.from_iterable(predictions[query] for query in looked))
        wanted = set(chain.from_iterable(right[query] for query in looked))
        if wanted and not named & wanted:
            # The rest is looked at before all is called wrong.
            named.update(chain.from_iterable(predictions[query] for query in scored))
            wanted.update(chain.from_iterable(right.values()))
        respelled = _respelled(named - wanted, wanted - named)
        if wanted and not named & wanted:
            raise _nothing_in_common("photo", named, wanted, respelled)
        self._first += _respelled_notice("photo", "photos", respelled)
        self._named, self._wanted = named, wanted

    def lists(self) -> Iterator[Sequence[str] | KnownRanks]:
        """Yield the list of each query of the solution, in its order; an empty one for one without.

        Of a list that has nothing odd the ranks of its right photos may come instead.
        """
        predictions, right = self._predictions, self._right
        for query, ranks in zip(right, self._ranks(), strict=False):
            if ranks is not None:
                yield KnownRanks(ranks)
                continue
            ids = predictions.get(query, ())
            different = set(ids)
            if len(different) < len(ids):
                self._repeating.add(query)
            elif len(ids) == 1 and ids[0].lower() in NOTHING:
                self._words[query] = ids[0]
            if query in different and query not in right[query]:
                self._own.add(query)
            yield ids

    def _ranks(self) -> Iterator[list[int] | None]:
        """Yield for each query what is known of its list without cutting it into ids."""
        predictions, right = self._predictions, self._right
        if self._junk or not (isinstance(predictions, RankedLists) and predictions.spaced):
            return repeat(None)
        cells = [predictions.cell(query) for query in right]
        return ranks_in_cells(cells, list(right), list(right.values()))

    def notices(self) -> list[str]:
        """Return what is odd, as sentences, once the lists have passed."""
        right, own = self._right, self._own
        notices = self._first + _notice(
            "query names a photo more than once (a repeat earns nothing and uses up its rank)",
            "queries name a photo more than once (a repeat earns nothing and uses up its rank)",
            self._in_order(self._repeating),
        )
        notices += _notice(
            "query has a right photo more than once in the solution (each counts in the denominator)",
            "queries have a right photo more than once in the solution (each counts in the denominator)",
            [query for query, ids in right.items() if len(set(ids)) < len(ids)],
        )
        notices += _notice(
            "query has a word for nothing in place of a list (it is read as a photo of that name)",
            "queries have a word for nothing in place of a list (it is read as a photo of that name)",
            [f"{query}: {self._words[query]}" for query in self._in_order(self._words)],
        )
        if not self._queries_in_gallery:
            notices += _notice(
                "query stands in its own list of photos: is it in the gallery?",
                "queries stand in their own lists of photos: are the queries in the gallery?",
                self._in_order(own),
            )
            named, wanted = self._named, self._wanted
            notices += _notice(
                "query stands in the list of another: is it in the gallery?",
                "queries stand in the lists of others: are the queries in the gallery?",
                [query for query in right if query in named and query not in wanted and query not in own],
            )
        return notices

    def _in_order(self, queries: Collection[str]) -> list[str]:
        """Return queries as the submission orders them."""
        return [query for query in self._predictions if query in queries] if queries else []


def check_rankings(
    predictions: Rankings, right: Mapping[str, Collection[str]], *, queries_in_gallery: bool = False
) -> list[str]:
    """Compare the ids of ranked lists with those of a solution; return what is odd, as sentences.

    Parameters
    ----------
    predictions, right, queries_in_gallery
        As of `RankingCheck`, whose errors it raises.
    """
    check = RankingCheck(predictions, right, queries_in_gallery=queries_in_gallery)
    for _ in check.lists():
        pass
    return check.notices()


def check_recognition(
    predictions: Mapping[str, tuple[str, float]], solution: Mapping[str, Collection[str]]
) -> list[str]:
    """Compare the ids of recognised photos with those of a solution; return what is odd, as sentences.

    Raises
    ------
    LmrError
        If no prediction is for a photo of the solution, or no landmark that is named occurs in it.
    """
    labelled = {photo for photo, landmarks in solution.items() if landmarks}
    # A photo that is given no landmark has no prediction: to be missing is no fault.
    notices = _check_ids("photo", "photos", predictions, solution, labelled)
    named = {landmark for photo, (landmark, _) in predictions.items() if photo in solution}
    wanted = set(chain.from_iterable(solution.values()))
    respelled = _respelled(named - wanted, wanted - named)
    if wanted and not named & wanted:
        raise _nothing_in_common("landmark", named, wanted, respelled)
    notices += _respelled_notice("landmark", "landmarks", respelled)
    return notices


def plain_spelling(one: str) -> str:
    """Return an id without what programs change in it: folders, suffix, capitals, zeros, accents' form.

    Examples
    --------
    >>> [plain_spelling(one) for one in ("index/00012.JPG", "12.0", "Café.png")]
    ['12', '12', 'café']
    """
    if one.isascii() and one.isalnum():  # most are, and have no folder and no suffix
        return (one.lstrip("0") or "0") if one.isdigit() else one.lower()
    plain = unicodedata.normalize("NFKC", one)
    plain = _SUFFIX.sub("", plain.replace("\\", "/").rpartition("/")[2].strip().casefold())
    if _WHOLE_NUMBER.fullmatch(plain):
        return plain.partition(".")[0].lstrip("0") or "0"
    return plain


def _check_ids(
    noun: str,
    nouns: str,
    predictions: Mapping[str, object],
    solution: Mapping[str, object],
    counted: Collection[str],
) -> list[str]:
    unknown = [one for one in predictions if one not in solution]
    missing = [one for one in solution if one in counted and one not in predictions]
    respelled = _respelled(unknown, missing)
    if solution and len(unknown) == len(predictions):
        raise _nothing_in_common(noun, unknown, solution, respelled)
    known = dict(respelled)
    notices = _respelled_notice(noun, nouns, respelled)
    notices += _notice(
        f"{noun} is not in the solution and is not scored",
        f"{nouns} are not in the solution and are not scored",
        [one for one in unknown if one not in known],
    )
    few = " (more than half: is the submission whole?)" if 2 * len(missing) > len(counted) else ""
    notices += _notice(
        f"{noun} of the solution's {len(counted)} has no prediction and counts as 0{few}",
        f"{nouns} of the solution's {len(counted)} have no prediction and count as 0{few}",
        missing,
    )
    return notices


def _respelled(unknown: Iterable[str], missing: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of an id as it was predicted and as the solution spells it."""
    as_known = {plain_spelling(one): one for one in missing}
    if not as_known:
        return []
    pairs = ((one, as_known.get(plain_spelling(one))) for one in unknown)
    return sorted((one, known) for one, known in pairs if known is not None)


def _respelled_notice(noun: str, nouns: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    shown = [f"{one} for {known}" for one, known in pairs]
    return _notice(
        f"{noun} is spelled otherwise than in the solution",
        f"{nouns} are spelled otherwise than in the solution",
        shown,
    )


def _nothing_in_common(
    noun: str, predicted: Collection[str], known: Collection[str], respelled: Sequence[tuple[str, str]]
) -> LmrError:
    if respelled:
        return LmrError(
            f"no {noun} of the submission is in the solution, but {len(respelled)} differ by spelling alone",
            got=first_five(f"{one} for {known_one}" for one, known_one in respelled),
            fix="write the ids of both files as text, without suffix and folder (pandas: dtype=str)",
        )
    if not predicted:
        return LmrError(
            f"the submission names no {noun} for any id of the solution, so nothing can be right",
            got="nothing but empty lists",
            fix="check that the submission was written to its end",
        )
    return LmrError(
        f"no {noun} of the submission is in the solution, so nothing can be right and the score is 0",
        got=f"{len(predicted)} in the submission: {first_five(sorted(predicted))};"
        f" {len(known)} in the solution: {first_five(sorted(known))}",
        fix="score the submission with the solution of the same photos",
    )


def _notice(one: str, many: str, offenders: Sequence[str]) -> list[str]:
    if not offenders:
        return []
    return [f"{len(offenders)} {one if len(offenders) == 1 else many}: {first_five(offenders)}"]
