"""Which datasets a run consists of: kept in its folder, so that any machine can open the run afterwards."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmr import storage
from lmr.errors import StorageError
from lmr.runtime.steps import closure, grouped
from lmr.steps.both import Both
from lmr.steps.photos.listing import Layout
from lmr.steps.workflow import Workflow
from lmr.storage.datasets import Dataset, JoinedDataset
from lmr.storage.json_files import read_json, write_json

__all__ = ["RECORD", "STARTED", "RunDatasets", "open_datasets", "store_datasets"]

RECORD = "datasets.json"
"""Written when a run has ended."""

STARTED = "started.json"
"""The same of the run that was begun last, whether it has ended or not."""

VERSION = 3


@dataclass(frozen=True, kw_only=True)
class RunDatasets:
    """The datasets of a run, by what they hold.

    It travels to the worker that finishes the run, and so names datasets only: it is small, whatever the
    number of photos.

    Attributes
    ----------
    root
        The run's folder.
    photos, images
        Lists of photos, and their contents; None where only descriptors were given.
    layouts
        How photos lie in shards.
    rankings
        A ranking after each stage, in order.
    labels
        What people read in place of a ranking's name.
    submission, unusable
        What is submitted; photos that could not be used, None where no photo was looked at.
    steps
        The datasets of all steps, for what they cost.
    settings
        Settings of every step, as plain values.
    scores, solution
        Scores of every ranking and what they were scored by; None without a solution.
    local, described
        Local features and global descriptors; None where the workflow has none to show.
    pairs, verified
        The verified pairs, and the name of the ranking that puts confident matches first; None without.
    protocols
        Scores by protocols that were asked for; None without.
    recognised
        Of a workflow of recognition, what it is read from by name; see `Recognised`. None of others.
    probable
        The probability of each answer; None without a calibration.
    calibration
        The calibration, as its file has it; None without one.
    about
        What else people want to know of the run: its workflow, command, folders, preset and versions.
    """

    root: str
    photos: Both[Dataset]
    layouts: Both[Layout]
    rankings: Mapping[str, Dataset]
    submission: Dataset
    steps: tuple[Dataset, ...]
    settings: Mapping[str, Any]
    images: Both[Dataset] | None = None
    unusable: Dataset | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    scores: Dataset | None = None
    solution: Dataset | None = None
    local: Both[Dataset] | None = None
    described: Both[Dataset] | None = None
    pairs: Dataset | None = None
    verified: str | None = None
    protocols: Dataset | None = None
    recognised: Mapping[str, Dataset] | None = None
    probable: Dataset | None = None
    calibration: Mapping[str, Any] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def label(self, stage: str) -> str:
        """Return what people read in place of a ranking's name."""
        return self.labels.get(stage, stage)

    @classmethod
    def of(
        cls, flow: Workflow, root: str, settings: Any, about: Mapping[str, Any] | None = None
    ) -> "RunDatasets":
        """Name the datasets of a workflow below a folder; `settings` is a dataclass of dataclasses."""
        inputs = flow.inputs
        verified = [
            name
            for name, ranked in flow.rankings.items()
            if flow.verified and ranked is flow.verified.ranking
        ]
        return cls(
            root=root,
            photos=inputs.photos.map(lambda photos: photos.named().dataset(root)),
            images=flow.images.map(lambda images: images.dataset(root)) if flow.images else None,
            layouts=inputs.photos.map(lambda photos: photos.layout),
            rankings={name: ranked.step.dataset(root) for name, ranked in flow.rankings.items()},
            labels=dict(flow.labels),
            submission=flow.submission.dataset(root),
            unusable=flow.unusable.dataset(root) if flow.unusable else None,
            scores=flow.scores.dataset(root) if flow.scores else None,
            solution=inputs.solution.dataset(root) if inputs.solution else None,
            protocols=flow.protocol_scores.dataset(root) if flow.protocol_scores else None,
            local=flow.local.map(lambda local: local.source.dataset(root)) if flow.local else None,
            described=flow.described.map(lambda one: one.source.dataset(root)) if flow.described else None,
            pairs=flow.verified.pairs.dataset(root) if flow.verified else None,
            verified=verified[0] if verified else None,
            steps=tuple(source.dataset(root) for source in grouped(closure(flow.targets))),
            settings=_settings(settings),
            recognised=(
                {name: source.dataset(root) for name, source in flow.recognised.sources.items()}
                if flow.recognised
                else None
            ),
            probable=flow.probable.dataset(root) if flow.probable else None,
            calibration=inputs.calibration.plain() if inputs.calibration else None,
            about=dict(about or {}),
        )


def store_datasets(run: RunDatasets, name: str = RECORD) -> None:
    """Write `datasets.json`, or a record of another name, into the run's folder."""
    record = {
        "version": VERSION,
        **{f.name: _plain(getattr(run, f.name), run.root) for f in dataclasses.fields(run)},
    }
    del record["root"]
    write_json(storage.join(run.root, name), record)


def open_datasets(root: str, *, unfinished: bool = False, record: str = RECORD) -> RunDatasets:
    """Return what `store_datasets` wrote.

    Parameters
    ----------
    root
        The run's folder.
    unfinished
        Take the run that was begun last, also where it has not ended.
    record
        Its record: that of the run that has ended last, or one of those that are kept by settings.

    Raises
    ------
    StorageError
        If the folder holds no finished run, or the file is damaged.
    """
    url = storage.join(root, record)
    if unfinished and storage.exists(started := storage.join(root, STARTED)):
        url = started
    again = "run the same command once more: no finished shard is made again"
    if not storage.exists(url):
        raise StorageError(
            "there is no finished run here",
            got=f"no {url}",
            fix=f"give the folder that lmr run had as --out, or {again}",
        )
    found: dict[str, Any] = read_json(url, dict[str, Any], fix=again)
    if found.get("version") != VERSION:
        raise StorageError(
            "another version of lmr made this run", got=f"{url}: version {found.get('version')}", fix=again
        )
    try:
        return _opened(found, root)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"[:200]
        raise StorageError(f"{url} is damaged", got=got, fix=again) from error


def _plain(value: Any, root: str) -> Any:
    """Return a value as JSON has it; datasets by their folder below the run's."""
    if isinstance(value, Dataset):
        folder = value.url[len(root.rstrip("/")) + 1 :]
        parts = {"parts": _plain(value.parts, root)} if isinstance(value, JoinedDataset) else {}
        return {
            "folder": folder,
            "step": value.step,
            "fingerprint": value.fingerprint,
            "shards": value.shards,
            **parts,
        }
    if isinstance(value, Both):
        return {role: _plain(one, root) for role, one in value.items()}
    if isinstance(value, Layout):
        counts = {"counts": list(value.counts)} if value.counts else {}
        return {"starts": list(value.starts), "per_shard": value.per_shard, **counts}
    if isinstance(value, Mapping):
        return {name: _plain(one, root) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one, root) for one in value]
    return value


def _settings(groups: Any) -> Any:
    """Return settings as JSON has them, so that a run that was just made is as one that is opened."""
    return json.loads(json.dumps(dataclasses.asdict(groups)))


def _opened(record: Mapping[str, Any], root: str) -> RunDatasets:
    def dataset(about: Mapping[str, Any]) -> Dataset:
        own = storage.join(root, about["folder"]), about["step"], about["fingerprint"], int(about["shards"])
        return JoinedDataset(*own, tuple(map(dataset, about["parts"]))) if "parts" in about else Dataset(*own)

    def maybe(name: str) -> Dataset | None:
        return None if record[name] is None else dataset(record[name])

    def both(name: str) -> Both[Dataset]:
        return Both(record[name]["gallery"], record[name]["queries"]).map(dataset)

    def maybe_both(name: str) -> Both[Dataset] | None:
        return None if record[name] is None else both(name)

    layouts = Both(record["layouts"]["gallery"], record["layouts"]["queries"])
    return RunDatasets(
        root=root,
        photos=both("photos"),
        images=maybe_both("images"),
        layouts=layouts.map(
            lambda about: Layout(
                tuple(about["starts"]), int(about["per_shard"]), tuple(about.get("counts", ()))
            )
        ),
        rankings={name: dataset(about) for name, about in record["rankings"].items()},
        labels=dict(record["labels"]),
        submission=dataset(record["submission"]),
        unusable=maybe("unusable"),
        steps=tuple(map(dataset, record["steps"])),
        settings=dict(record["settings"]),
        scores=maybe("scores"),
        solution=maybe("solution"),
        local=maybe_both("local"),
        described=maybe_both("described"),
        pairs=maybe("pairs"),
        verified=record["verified"],
        # Runs of before know of no protocols and of no recognition.
        protocols=dataset(record["protocols"]) if record.get("protocols") else None,
        recognised=(
            {name: dataset(about) for name, about in record["recognised"].items()}
            if record.get("recognised")
            else None
        ),
        # Nor of calibrations.
        probable=dataset(record["probable"]) if record.get("probable") else None,
        calibration=record.get("calibration") or None,
        about=dict(record.get("about") or {}),
    )
