"""What a run's folder holds: its datasets, by whose settings, and how large; and which can be deleted."""

import re
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from lmr import storage
from lmr.errors import StorageError
from lmr.steps.results.folder.datasets import RECORD, STARTED, RunDatasets, open_datasets
from lmr.steps.results.folder.kept import RESULTS
from lmr.steps.results.folder.origins import read_origins
from lmr.storage.datasets import Dataset, JoinedDataset, facts_of
from lmr.storage.json_files import read_json, write_json

__all__ = ["Content", "contents", "delete_contents", "foreign", "keep_grouped"]

_SHARD = re.compile(r"(?P<folder>.+)/(?P<fingerprint>[0-9a-f]{12})/(?P<file>[^/]+)")
_PART = re.compile(r"part-(\d{5,})\.parquet")

GIVEN = ("photos/", "solution/")
"""Lists that a run starts from: small, and later runs look at all of them."""

GROUPED = "groups/steps.json"
"""Names the datasets of the last `lmr group`, below the run's folder: the run's own record knows none."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """A dataset in a run's folder.

    Attributes
    ----------
    url
        Its folder.
    folder, fingerprint
        The last parts of it: where datasets of its kind lie, and what names it.
    files
        Names of the files in it.
    n_bytes
        Their size.
    latest
        Whether it is of the run that was begun last, of the one that has ended last, or of the last
        `lmr group`.
    """

    url: str
    folder: str
    fingerprint: str
    files: tuple[str, ...]
    n_bytes: int
    latest: bool


def contents(root: str) -> list[Content]:
    """List the datasets of a run's folder, by one listing.

    Raises
    ------
    StorageError
        If no run was begun there.
    """
    latest = {url for run in _records(root) for url in _urls(run.steps)}
    # What a run was given, such as descriptors, is no step of it, but steps of it name it.
    origins = read_origins(root)
    read = [origins[name].inputs for url in latest if (name := url.rpartition("/")[2]) in origins]
    given_to = {name for inputs in read for one in inputs.values() for name in one.values()}
    grouped = _grouped(root)
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for path, about in storage.find(root).items():
        if (match := _SHARD.fullmatch(path)) and match["folder"] != RESULTS:
            found[match["folder"], match["fingerprint"]][match["file"]] = int(about.get("size") or 0)
    made = []
    for (folder, fingerprint), files in sorted(found.items()):
        url = storage.join(root, folder, fingerprint)
        given = f"{folder}/".startswith(GIVEN) or fingerprint in given_to
        names = tuple(sorted(files))
        made.append(
            Content(
                url=url,
                folder=folder,
                fingerprint=fingerprint,
                files=names,
                n_bytes=sum(files.values()),
                latest=given or url in latest or f"{folder}/{fingerprint}" in grouped,
            )
        )
    return made


def _records(root: str) -> list[RunDatasets]:
    """Return the run that has ended last and the one that was begun last."""
    found = [open_datasets(root, unfinished=True)]
    if storage.exists(storage.join(root, STARTED)) and storage.exists(storage.join(root, RECORD)):
        found.append(open_datasets(root))
    return found


def _urls(datasets: Iterable[Dataset]) -> Iterable[str]:
    for dataset in datasets:
        yield from _urls(dataset.parts) if isinstance(dataset, JoinedDataset) else (dataset.url,)


def keep_grouped(root: str, datasets: Iterable[Dataset], *, ended: bool) -> None:
    """Note the datasets of `lmr group`, so that they count as the latest; those of its run do so anyhow.

    Until it has ended, what the one before it has made counts as well.
    """
    mine = set(_urls(datasets)) - {url for run in _records(root) for url in _urls(run.steps)}
    names = {url.removeprefix(f"{root.rstrip('/')}/") for url in mine}
    if not ended:
        with suppress(StorageError):  # a damaged note is written anew
            names |= _grouped(root)
    write_json(storage.join(root, GROUPED), {"datasets": sorted(names)})


def _grouped(root: str) -> set[str]:
    url = storage.join(root, GROUPED)
    if not storage.exists(url):
        return set()
    found = read_json(url, dict[str, list[str]], fix="call lmr group once more, which writes it anew")
    return set(found.get("datasets", []))


def foreign(content: Content) -> list[str]:
    """Return the files of a dataset's folder that lmr did not write as its shards, or that are damaged."""
    with ThreadPoolExecutor(16) as pool:
        ours = list(pool.map(lambda name: _is_ours(content, name), content.files))
    return [name for name, own in zip(content.files, ours, strict=True) if not own]


def _is_ours(content: Content, name: str) -> bool:
    part = _PART.fullmatch(name)
    if part is None:
        return False
    try:
        facts = facts_of(storage.join(content.url, name))
    except StorageError:
        return False
    return facts.get("fingerprint") == content.fingerprint and facts.get("shard") == int(part[1])


def delete_contents(content: Content) -> None:
    """Delete the files of a dataset that were listed and no others, and its folder if it is empty then."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: storage.delete(storage.join(content.url, name)), content.files))
    if storage.is_local(content.url):
        storage.delete_empty(content.url)
