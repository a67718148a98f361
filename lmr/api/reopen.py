"""A finished run, declared anew: its steps, from nothing but what its folder holds.

The steps name the datasets that the run has made, so whatever is declared on top of them (one more photo to
search for, groups of the gallery's photos) goes on from there. No photo is listed again, and none is read.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lmr import storage
from lmr.api.workflows import build_workflow, load_workflow, preset
from lmr.errors import LmrError, StorageError
from lmr.features.extractors import is_own
from lmr.runtime.settings import layer
from lmr.shipped import sources
from lmr.steps.both import Both
from lmr.steps.calibration import Calibration
from lmr.steps.photos.archives import ARCHIVE_SUFFIX
from lmr.steps.photos.listing import Photos, stored_list
from lmr.steps.photos.lists import LIST_SUFFIXES
from lmr.steps.recognition.labels import stored_labels
from lmr.steps.results.folder.datasets import RunDatasets, open_datasets
from lmr.steps.results.folder.origins import read_origins
from lmr.steps.workflow import Inputs, Weights, Workflow
from lmr.storage.datasets import JoinedDataset

__all__ = ["Reopened", "reopen"]

_AGAIN = "run the command that made this run once more: finished shards are not made again"


@dataclass(frozen=True, kw_only=True)
class Reopened:
    """A finished run whose steps are declared anew, with one photo that is still unknown as its only query.

    Attributes
    ----------
    datasets
        The datasets that the run ended in.
    flow
        The steps of its workflow. Those of the gallery name the datasets that are there.
    settings
        Settings of every step.
    """

    datasets: RunDatasets
    flow: Workflow
    settings: Any

    @property
    def root(self) -> str:
        """The run's folder."""
        return self.datasets.root


def reopen(run: str | os.PathLike[str], *, own_code: bool = False) -> Reopened:
    """Declare the steps of a finished run anew.

    Parameters
    ----------
    run
        The run's folder, at any fsspec URL.
    own_code
        Whether to run code that the run's folder names: a workflow file, or an extractor of one's own.

    Raises
    ------
    LmrError
        If the run has not ended, knows no photos, names code that is not allowed to run, or was made by
        another version of lmr.
    """
    root = storage.absolute(os.fspath(run))
    datasets = open_datasets(root)
    about, values = datasets.about, datasets.settings
    if datasets.images is None or datasets.described is None:
        raise LmrError(
            "this run knows no photos that others could be compared with",
            got=f"a run on descriptors: {root}",
            fix="give the folder of a run on photos, such as one of the workflow retrieval",
        )
    extractors = [values.get("local", {}).get("features"), values.get("describe", {}).get("descriptor")]
    if not own_code and (own := [one for one in extractors if isinstance(one, str) and is_own(one)]):
        raise _not_allowed(own[0])
    module = load_workflow(_workflow(str(about.get("workflow") or "retrieval"), own_code))
    settings = layer(preset(module, about.get("preset")), values)
    gallery, choices = _gallery(datasets), about.get("choices", {})
    inputs = Inputs(
        photos=Both(gallery, _unknown()),
        weights=_weights(choices.get("weights")),
        local_weights=_weights(choices.get("local_weights")),
        labels=stored_labels(datasets.recognised["labels"]) if datasets.recognised else None,
        calibration=Calibration.of_plain(datasets.calibration) if datasets.calibration else None,
    )
    flow = build_workflow(module, inputs, settings)
    if flow.images is None or flow.images.gallery.fingerprint != datasets.images.gallery.fingerprint:
        raise LmrError(
            "another version of lmr or of its workflow made this run",
            got=f"{root}: its photos are known by another fingerprint",
            fix=_AGAIN,
        )
    return Reopened(datasets=datasets, flow=flow, settings=settings)


def _unknown() -> Photos:
    """Return the one query that is not known yet; its bytes are given when it is asked for."""
    return Photos("queries", "asked", ("asked",), ("asked",), ("0 0",))


def _gallery(run: RunDatasets) -> Photos:
    """Return the gallery's photos as the run knows them, from the lists that it keeps."""
    assert run.images is not None
    origins, images = read_origins(run.root), run.images.gallery
    parts = images.parts if isinstance(images, JoinedDataset) else (images,)
    paths: list[str] = []
    stamps: list[str] = []
    for part in parts:
        origin = origins.get(part.fingerprint)
        while origin and "photos" not in origin.inputs and "images" in origin.inputs:
            # Steps between ingest and the others, such as `keep_one`, read one step's photos each.
            origin = origins.get(next(iter(origin.inputs["images"].values()), ""))
        listed = origin and origin.inputs.get("photos", {}).get("photos_gallery")
        if not listed:
            raise StorageError(
                "it is not known which photos this run was made of",
                got=f"nothing of {part.step} {part.fingerprint} in {storage.join(run.root, 'steps.json')}",
                fix=_AGAIN,
            )
        rows = stored_list("gallery", run.root, listed).read(0, ["path", "stamp"])
        paths += rows.column("path").to_pylist()
        stamps += rows.column("stamp").to_pylist()
    named = run.photos.gallery.read(0, ["id", "path"])
    places = named.column("path").to_pylist()
    return Photos(
        "gallery",
        _folder(str(run.about.get("gallery") or "")),
        tuple(named.column("id").to_pylist()),
        tuple(paths),
        tuple(stamps),
        starts=run.layouts.gallery.starts,
        per_shard=run.layouts.gallery.per_shard,
        moved={known: place for known, place in zip(paths, places, strict=True) if known != place},
    )


def _folder(url: str) -> str:
    """Return the folder of a gallery that was given as a folder, a list or an archive."""
    listed = url.lower().endswith((*LIST_SUFFIXES, ARCHIVE_SUFFIX))
    return url.rpartition("/")[0] if listed else url


def _workflow(name: str, own_code: bool) -> str:
    """Return the workflow to load: one that comes with lmr, or a file of one's own where that is allowed."""
    ours = {
        PurePosixPath(file).stem: path for file, path in sources().items() if file.startswith("workflows/")
    }
    if not name.endswith(".py") or own_code:
        return name
    file, shipped = Path(name), ours.get(Path(name).stem)
    if shipped and (not file.is_file() or file.read_bytes() == Path(str(shipped)).read_bytes()):
        return file.stem
    raise _not_allowed(name)


def _not_allowed(name: str) -> LmrError:
    return LmrError(
        "this run was made by code of someone's own, which its folder names",
        got=name,
        fix="give --own-code (own_code=True in Python) if you trust whoever made the run",
    )


def _weights(url: Any) -> Weights | None:
    return Weights.of(url) if isinstance(url, str) and url else None
