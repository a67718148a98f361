"""The copies of a run for people: `duplicates.csv`."""

from lmr import storage
from lmr.runtime.steps import Role
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.storage.datasets import Dataset
from lmr.text import csv_cell

__all__ = ["store_duplicates"]

_STEPS: dict[str, Role] = {"find_copies": "gallery", "find_copies_queries": "queries"}


def store_duplicates(run: RunDatasets) -> str | None:
    """Write `duplicates.csv` into the run's folder; return its URL, None where copies were not looked for.

    Columns `set`, `id`, `path` of each copy, `copy_of` and `copy_of_path` (a photo of the gallery), `kind`
    ("exact": the files are the same; "near": the pictures are), `bits` (in which perceptual hashes differ).
    """
    found = {role: d for d in run.steps if (role := _STEPS.get(d.step)) is not None}
    if not found:
        return None
    gallery = _names(run, "gallery")
    lines = ["set,id,path,copy_of,copy_of_path,kind,bits"]
    for role, dataset in found.items():
        lines += _lines(role, dataset, _names(run, role), gallery)
    url = storage.join(run.root, "duplicates.csv")
    storage.put(url, "\n".join([*lines, ""]).encode())
    return url


def _names(run: RunDatasets, role: Role) -> list[tuple[str, str]]:
    rows = run.photos.of(role).read(0, ["id", "path"]).to_pydict()
    return [(one, csv_cell(path)) for one, path in zip(rows["id"], rows["path"], strict=True)]


def _lines(
    role: Role, dataset: Dataset, names: list[tuple[str, str]], gallery: list[tuple[str, str]]
) -> list[str]:
    made = []
    for shard in range(dataset.shards):
        rows = dataset.read(shard).to_pydict()
        for photo, first, kind, bits in zip(
            *(rows[n] for n in ("photo", "first", "kind", "bits")), strict=True
        ):
            made.append(",".join([role, *names[photo], *gallery[first], kind, str(bits)]))
    return made
