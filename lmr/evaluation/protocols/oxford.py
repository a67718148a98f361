"""Ground truth of the Oxford and Paris protocols, as CSV or JSON: bytes in, lists of ids out.

==========================================  ==================================================
form                                        holds
==========================================  ==================================================
CSV ``id,easy,hard,junk`` (revisited)       ids separated by spaces; the column junk may be missing
CSV ``id,ok,junk`` (classic)                the same; a list good may stand before ok and joins it
JSON ``{query: {"easy": [id, …], …}}``      the same lists, by query
JSON ``{"imlist", "qimlist", "gnd"}``       revisitop's own file, its numbers replaced by the names
==========================================  ==================================================
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lmr.errors import LmrError
from lmr.evaluation.protocols.kaggle import answers_of, table_rows
from lmr.evaluation.scores import first_five
from lmr.evaluation.table_text import Faults, text_of

__all__ = ["parse_truths"]

Truths = dict[str, dict[str, list[str]]]


def parse_truths(data: bytes, name: str = "the solution", *, needs: Sequence[str]) -> Truths:
    """Read a ground truth: query id to the ids under each of `needs`, and under `junk`.

    Parameters
    ----------
    data
        The bytes of the file.
    name
        What errors call it.
    needs
        The lists that the protocol reads: easy and hard, or ok.

    Raises
    ------
    LmrError
        If it is no such file, a list is missing, or a photo is listed twice for a query.
    """
    # Oxford's own lists call the right photos good or ok, by how much of the building is seen.
    wanted = ("good", *needs, "junk") if "ok" in needs else (*needs, "junk")
    if text_of(data, name).lstrip().startswith("{"):
        truths = _from_json(data, name, needs, wanted)
    else:
        plain = ",".join(["id", *needs])
        headers = (f"{plain},junk", plain, ",".join(["id", *wanted]))
        faults = Faults(name)
        rows = [(query, cells) for _, query, cells in table_rows(data, name, headers, faults)]
        faults.raise_if_any()
        columns = wanted if rows and len(rows[0][1]) == len(wanted) else (*needs, "junk")
        truths = {query: dict(zip(columns, map(answers_of, cells), strict=False)) for query, cells in rows}
    truths = {query: {key: list(lists.get(key, ())) for key in wanted} for query, lists in truths.items()}
    twice = [
        f"query {query}: photo {photo}"
        for query, lists in truths.items()
        for photo in _repeated([photo for photos in lists.values() for photo in photos])
    ]
    if twice:
        raise LmrError(
            f"{name} lists {len(twice)} photos twice for a query",
            got=first_five(twice),
            fix="a photo is right or junk once",
        )
    for lists in truths.values():
        if "good" in lists:
            lists["ok"] = [*lists.pop("good"), *lists["ok"]]
    return truths


def _from_json(data: bytes, name: str, needs: Sequence[str], wanted: Sequence[str]) -> Truths:
    try:
        found: Any = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise LmrError(
            f"{name} is not whole JSON", got=str(error)[:80], fix="write it again; it may be cut off"
        ) from error
    photo_name: Any = str
    if {"imlist", "qimlist", "gnd"} <= found.keys():
        names = found["imlist"]
        found = dict(zip(map(str, found["qimlist"]), found["gnd"], strict=False))
        photo_name = lambda number: str(names[number])  # noqa: E731
    lacking = [
        query
        for query, lists in found.items()
        if not isinstance(lists, Mapping) or not lists.keys() >= {*needs}
    ]
    if lacking or not found:
        raise LmrError(
            f"{name} lacks the lists {' and '.join(needs)} for {len(lacking)} of {len(found)} queries",
            got=first_five(lacking) or "no queries",
            fix=f"write {{query: {{{', '.join(f'{key!r}: [id, …]' for key in (*needs, 'junk'))}}}}}",
        )
    try:
        return {
            query: {key: [photo_name(i) for i in lists.get(key, ())] for key in wanted}
            for query, lists in found.items()
        }
    except (TypeError, IndexError) as error:
        raise LmrError(
            f"a list of {name} does not hold photos",
            got=str(error),
            fix="write lists of ids, or numbers into imlist",
        ) from error


def _repeated(photos: Sequence[str]) -> list[str]:
    return [photo for photo, count in Counter(photos).items() if count > 1]
