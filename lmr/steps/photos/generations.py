"""Generations: a gallery that grows keeps what was made of its first photos.

A run's folder remembers the photos that it has seen. When a folder of photos holds all that the run knows,
unchanged, and others besides, these others are a further generation: photos are ingested, described and
indexed per generation, and nothing of an earlier one is made again.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge, Len
from pydantic import StringConstraints

from lmr import storage
from lmr.errors import ShardError
from lmr.runtime.steps import Role, Source, concat
from lmr.steps.photos.listing import Photos, stored_list
from lmr.steps.photos.tries import read_tries, tried, with_tries
from lmr.storage.json_files import read_json, write_json
from lmr.text import are, counted

__all__ = ["LEARN_AGAIN", "Recalled", "learned_from", "recall", "remember"]

LEARN_AGAIN = 2
"""Words, quantisers and whitenings are learned again when the gallery has grown to more than this many times
what they were learned from."""

_Identity = tuple[str, str]
_History = Annotated[
    dict[Annotated[str, StringConstraints(pattern="^[0-9a-f]{8,64}$")], Annotated[int, Ge(0)]], Len(1)
]
"""Of each generation the fingerprint of its list, and its number of photos."""


def learned_from(source: Source) -> Source:
    """Return the generations that a codebook, a quantiser or a whitening is learned from.

    That is the first one until the gallery has more than doubled, then all that there are by then, and so on:
    growing by little makes nothing anew, and a first trial with ten photos does no lasting harm.
    """
    learned, learned_rows, rows = 1, source.parts[0].rows, 0
    for count, part in enumerate(source.parts, start=1):
        rows += part.rows
        if rows > LEARN_AGAIN * learned_rows:
            learned, learned_rows = count, rows
    return concat(source.parts[:learned])


@dataclass(frozen=True)
class Recalled:
    """Photos in the order in which a run knows them.

    Attributes
    ----------
    photos
        All photos that were listed; those that the run knows come first.
    news
        What the run did not know, a sentence for the user; empty when there is nothing new.
    """

    photos: Photos
    news: str


def recall(listed: Photos, root: str) -> Recalled:
    """Bring listed photos into the order in which a run knows them; new ones are one more generation.

    A photo is known by its path, size and time of change (or ETag); one that was renamed, and that alone has
    its size and time, is known by the path that it had. Of the lists that the run has seen,
    the longest that is wholly there counts; when there is none, because photos are gone or have changed, the
    run begins anew with all of them.
    """
    histories = sorted(_histories(listed.role, root), key=lambda known: -sum(known.values()))
    if not histories:
        return Recalled(listed, "")
    tries = read_tries(listed.role, root)
    listed = with_tries(listed, tries)
    lost, unread = [], []
    for history in histories:
        generations = {one: _generation(listed.role, root, one, tries) for one in history}
        known = _under_known_paths(listed, [one for some in generations.values() for one in some or ()])
        row_of = {identity: row for row, identity in enumerate(_identities(known))}
        rows = {f: [row_of[k] for k in some or () if k in row_of] for f, some in generations.items()}
        unread.append(sum(some is None for some in generations.values()))
        if unread[-1] == 1:
            rows = _restored(known, rows, next(f for f, some in generations.items() if some is None))
        if [len(some) for some in rows.values()] == list(history.values()):
            return _grown(known, list(rows.values()))
        lost.append(sum(history.values()) - sum(map(len, rows.values())))
    knew = sum(histories[0].values())
    if unread[0]:
        news = (
            f"{unread[0]} of the {len(histories[0])} lists of the {listed.role}'s photos that this run knows "
            f"are gone or damaged: it begins anew with the {len(listed):,} photos that are there; "
            "nothing that was made is deleted"
        )
        return Recalled(listed, news)
    news = (
        f"{lost[0]:,} of the {knew:,} photos of the {listed.role} that this run knows are gone or have "
        f"changed: it begins anew with the {len(listed):,} that are there; nothing that was made is deleted"
    )
    return Recalled(listed, news)


def remember(photos: Photos, root: str) -> None:
    """Store the generations of some photos in a run's folder, for `recall`."""
    lists = [generation.given() for generation in photos.generations()]
    history = {given.fingerprint: given.rows.num_rows for given in lists}
    histories = _histories(photos.role, root)
    if history in histories:
        return
    for given in lists:
        given.store(root)
    write_json(_url(photos.role, root), [*histories, history])


def _grown(listed: Photos, rows: list[list[int]]) -> Recalled:
    """Order photos by the generations that are known, given as rows of the listing; the rest is one more."""
    known = list(itertools.chain(*rows))
    new = sorted(set(range(len(listed))).difference(known))
    starts = [0, *itertools.accumulate(map(len, rows))]
    photos = replace(listed.take([*known, *new]), starts=tuple(starts if new else starts[:-1]))
    many = f"{counted(len(new), 'photo')} of the {listed.role} {are(len(new))}"
    news = f"{many} new to this run, which knows {len(known):,}"
    return Recalled(photos, news if new else "")


def _under_known_paths(listed: Photos, known: list[_Identity]) -> Photos:
    """Return the photos with those that were renamed under the paths by which the run knows them."""
    here = set(_identities(listed))
    gone = [identity for identity in known if identity not in here]
    if not gone:
        return listed
    before = {stamp: path for path, stamp in _alone(gone)}
    seen = set(known)
    after = {
        path: before[stamp]
        for path, stamp in _alone([one for one in _identities(listed) if one not in seen])
        if stamp in before
    }
    # A path that another photo has by now names that one.
    taken = set(listed.paths)
    after = {path: old for path, old in after.items() if old not in taken}
    return replace(
        listed,
        paths=tuple(after.get(path, path) for path in listed.paths),
        moved={old: path for path, old in after.items()},
    )


def _alone(identities: list[_Identity]) -> list[_Identity]:
    """Return those of which no other has the same stamp."""
    count = Counter(stamp for _, stamp in identities)
    return [(path, stamp) for path, stamp in identities if count[stamp] == 1]


def _restored(listed: Photos, rows: Mapping[str, list[int]], lost: str) -> dict[str, list[int]]:
    """Return the rows of every generation where the list of one is lost: it may be all that is left over.

    Generations are listed in the order of the listing, so what its fingerprint stands for can be compared.
    """
    known = set(itertools.chain(*rows.values()))
    rest = [row for row in range(len(listed)) if row not in known]
    first_row = sum(
        len(some) for some in itertools.takewhile(lambda some: some is not rows[lost], rows.values())
    )
    photos = replace(listed.take(rest), first_row=first_row)
    return {**rows, lost: rest} if photos.given().fingerprint == lost else dict(rows)


def _identities(photos: Photos) -> Iterator[_Identity]:
    return zip(photos.paths, photos.stamps, strict=True)


def _url(role: Role, root: str) -> str:
    return storage.join(root, "photos", role, "generations.json")


def _histories(role: Role, root: str) -> list[_History]:
    """Read what a run has seen: of each list, the generations' fingerprints and numbers of photos."""
    url = _url(role, root)
    if not storage.exists(url):
        return []
    fix = f"delete {url}: the run then begins anew with all photos"
    histories: list[_History] = read_json(url, list[_History], fix=fix)
    return histories


def _generation(role: Role, root: str, fingerprint: str, tries: Mapping[str, int]) -> list[_Identity] | None:
    """Read the photos of one generation; None when its list is no longer there, or damaged."""
    try:
        rows = stored_list(role, root, fingerprint).read(0, ["path", "stamp"])
    except ShardError:
        return None
    paths, stamps = (rows.column(name).to_pylist() for name in rows.column_names)
    return [(path, tried(path, stamp, tries)) for path, stamp in zip(paths, stamps, strict=True)]
