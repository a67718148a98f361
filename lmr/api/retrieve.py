"""Run a workflow from Python, as the command line does."""

import os
from collections.abc import Mapping
from typing import Any

from lmr.api.choices import Choices
from lmr.api.prepare import Prepared, prepare
from lmr.api.progress import progress_bars
from lmr.cluster.capacity import SMALLEST_BYTES, memory_bytes, usable_cpus
from lmr.cluster.client import Where
from lmr.errors import SettingsError
from lmr.features.gpus import local_gpus
from lmr.retrieval.global_search.nearest import gpu_count
from lmr.scheduler.run import Listener
from lmr.scheduler.run import run as run_steps
from lmr.steps.results.results import Results
from lmr.text import one_of

__all__ = ["place_of", "retrieve", "run_prepared", "run_workflow"]

Path = str | os.PathLike[str]


def retrieve(
    gallery: Path,
    queries: Path,
    out: Path,
    *,
    solution: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
    tls: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    **more: Any,
) -> Results:
    """Find, for every query, the gallery's photos of the same landmark, by the five steps of `retrieval`.

    What was finished before is not made again: call it once more to go on, with more photos or other
    settings.

    Parameters
    ----------
    gallery, queries
        Folders of photos: paths, or any fsspec URL such as `s3://bucket/photos`.
    out
        Folder of the run, at any fsspec URL that all workers reach.
    solution
        Kaggle's CSV file `id,images`, to score every stage.
    settings
        Settings of the steps: `{"verify": {"min_inliers": 20}}`, or `{"verify.min_inliers": 20}`.
    scheduler
        Address of a Dask scheduler; None: worker processes on this machine.
    tls
        Folder of the client's certificate, for a `tls://` address.
    workers
        Worker processes on this machine, without a scheduler: 0 runs in this process; None: one per core.
    progress
        Whether bars show the progress, in a terminal or in a notebook.
    **more
        Further choices: `preset`, `config`, `local`, `local_weights`, `descriptor`, `weights`, `device`,
        `search_device`, `prune`.

    Returns
    -------
    results
        Matches, rankings, pairs, scores and costs as tables.

    Raises
    ------
    LmrError
        If something is missing or does not fit; the message says what, what was got, and the fix.
    RunFailed
        If shards could not be made; every other shard was, and is kept.

    Examples
    --------
    >>> import lmr
    >>> run = lmr.retrieve("gallery/", "queries/", out="run/")  # doctest: +SKIP
    >>> run.matches().head()  # doctest: +SKIP
    """
    return run_workflow(
        "retrieval",
        gallery=gallery,
        queries=queries,
        out=out,
        solution=solution,
        settings=settings,
        scheduler=scheduler,
        tls=tls,
        workers=workers,
        progress=progress,
        **more,
    )


def run_workflow(
    workflow: Path,
    *,
    scheduler: str | None = None,
    tls: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    **choices: Any,
) -> Results:
    """Run any workflow; the choices are those of `retrieve`.

    Parameters
    ----------
    workflow
        The workflow's file, or its name.
    scheduler, tls, workers, progress
        As of `retrieve`.
    **choices
        `gallery`, `queries`, `out` and the further choices of `retrieve`; or, for a workflow on own
        descriptors such as `descriptors`, `gallery_descriptors`, `gallery_ids`, `query_descriptors` and
        `query_ids` in place of photos: files, or arrays and lists.

    Raises
    ------
    LmrError
        As of `retrieve`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> photos = rng.standard_normal((30, 8))
    >>> run = run_workflow(
    ...     "descriptors",
    ...     gallery_descriptors=photos,
    ...     gallery_ids=[f"photo{i}" for i in range(30)],
    ...     query_descriptors=photos[:2] + 0.1 * rng.standard_normal((2, 8)),
    ...     query_ids=["first", "second"],
    ...     out="run/",
    ... )  # doctest: +SKIP
    """
    unknown = choices.keys() - Choices.__dataclass_fields__.keys()
    if unknown:
        raise SettingsError(
            "there is no such choice",
            got=", ".join(sorted(unknown)),
            fix=one_of(min(unknown), sorted(Choices.__dataclass_fields__)),
        )
    plain = {name: os.fspath(one) if isinstance(one, os.PathLike) else one for name, one in choices.items()}
    plain["settings"] = _by_step(plain.get("settings") or {})
    prepared = prepare(os.fspath(workflow), Choices(**plain))
    tls = None if tls is None else os.fspath(tls)
    inputs = prepared.flow.inputs
    where = place_of(inputs.device, scheduler, tls, workers, search_device=inputs.search_device)
    with progress_bars(progress) as listener:
        return run_prepared(prepared, where, listener)


def run_prepared(prepared: Prepared, where: Where, listener: Listener | None = None) -> Results:
    """Run a prepared workflow to its end and return its results."""
    prepared.remember()
    run_steps(
        prepared.flow.targets,
        prepared.root,
        where,
        listener,
        workflow=prepared.name,
        finalizer=prepared.finalizer,
    )
    return Results(prepared.datasets)


def place_of(
    device: str, scheduler: str | None, tls: str | None, workers: int | None, *, search_device: str = "cpu"
) -> Where:
    """Return where a run's tasks run; see `retrieve`.

    Raises
    ------
    SettingsError
        If the number of workers is none, more than this machine has memory for, or given with a scheduler.
    """
    most = max(usable_cpus(), memory_bytes() // SMALLEST_BYTES)
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise SettingsError(
            "the number of workers is out of range",
            got=repr(workers)[:100],
            fix="give 0 (this process) or more",
        )
    if scheduler and workers is not None:
        raise SettingsError(
            "workers are started on this machine, or a scheduler has its own",
            got=f"{workers} workers, and the scheduler {scheduler}",
            fix="leave the workers away; or the scheduler, which DASK_SCHEDULER_ADDRESS names too",
        )
    if scheduler:
        return Where(scheduler=scheduler, tls=tls)
    workers = usable_cpus() if workers is None else workers
    if workers > most:
        raise SettingsError(
            "this machine has too little memory for so many workers",
            got=f"{workers:,} workers, {memory_bytes() / 1e9:.1f} GB",
            fix=f"give at most {most}; one per core is a good start",
        )
    # Networks cannot do without the GPU that they ask for; searches can.
    gpus = gpu_count() if device == "cpu" and search_device != "cpu" else local_gpus(device)
    return Where(workers=workers, gpus=gpus)


def _by_step(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return settings by step and field, however they were given."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        step, dot, field = name.partition(".")
        if dot:
            found.setdefault(step, {})[field] = value
        elif isinstance(value, Mapping):
            found.setdefault(step, {}).update(value)
        else:
            raise SettingsError(
                f"the setting {name} names no field",
                got=repr(value),
                fix='for example {"verify": {"min_inliers": 20}}',
            )
    return found
