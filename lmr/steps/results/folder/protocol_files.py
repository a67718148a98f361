"""What a run that was scored by protocols leaves for people, with published figures beside."""

import json

import numpy as np

from lmr import storage
from lmr.evaluation.protocols.published import Figure, Row, beside
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.folder.files import read_scores

__all__ = ["PROTOCOLS_FILE", "read_protocols", "read_published", "store_protocols"]

PROTOCOLS_FILE = "protocols.json"
"""Of a run that was scored by protocols: protocol, metric, stage and mean."""

Means = dict[str, dict[str, dict[str, float]]]
"""Protocol to metric to stage to mean."""


def read_protocols(run: RunDatasets) -> Means:
    """Return the mean by every protocol and metric after each stage; empty where none was asked for.

    A protocol by which no query counts has NaN.
    """
    if run.protocols is None:
        return {}
    rows = run.protocols.read(0).to_pydict()
    values: dict[tuple[str, str, str], list[float]] = {}
    for protocol, metric, stage, score in zip(
        rows["protocol"], rows["metric"], rows["stage"], rows["score"], strict=True
    ):
        values.setdefault((protocol, metric, stage), []).append(score)
    found: Means = {}
    for (protocol, metric, stage), scores in values.items():
        counted = [one for one in scores if one == one]
        mean = float(np.mean(counted)) if counted else np.nan
        found.setdefault(protocol, {}).setdefault(metric, {})[stage] = mean
    return found


def store_protocols(run: RunDatasets) -> None:
    """Write `protocols.json` into the run's folder; nothing where no protocol was asked for."""
    if means := read_protocols(run):
        plain = {
            protocol: {
                metric: {stage: one if one == one else None for stage, one in stages.items()}
                for metric, stages in metrics.items()
            }
            for protocol, metrics in means.items()
        }
        url = storage.join(run.root, PROTOCOLS_FILE)
        storage.put(url, (json.dumps(plain, indent=2) + "\n").encode())


def read_published(run: RunDatasets) -> list[Row]:
    """Return the run's own figures among those that papers print of its data set; empty without such."""
    figures = [Figure(**one) for one in run.about.get("published") or ()]
    own = {
        protocol: _last(metrics["map"])
        for protocol, metrics in read_protocols(run).items()
        if "map" in metrics
    }
    if run.recognised is None and (scores := read_scores(run)):
        own["map_at_100"] = _last(scores)
    own = {protocol: score for protocol, score in own.items() if score == score}
    wanted = {figure.protocol for figure in figures}
    own = {protocol: score for protocol, score in own.items() if protocol in wanted}
    return beside(figures, own, "this run") if own else []


def _last(stages: dict[str, float]) -> float:
    return list(stages.values())[-1]
