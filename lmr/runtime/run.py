"""Run a workflow: look at storage, make what is missing, account for everything."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from lmr.errors import LmrError
from lmr.runtime import storage
from lmr.runtime.cluster import Counts, Where, open_executor
from lmr.runtime.graph import Plan, build_graph, needed
from lmr.runtime.steps import Given, Receipt, Step, Summary

__all__ = ["Listener", "Outcome", "RunFailed", "run"]


class Listener(Protocol):
    """Is told of a run's progress."""

    def planned(self, plan: Plan) -> None:
        """Called once, before anything runs."""

    def connected(self, dashboard: str | None) -> None:
        """Called when there is something to run on; with the dashboard's address if it has one."""

    def progressed(self, counts: Counts) -> None:
        """Called often, with the number of finished shards per step."""


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes
    ----------
    plan
        What had to be done.
    summaries
        Of each step that had something to do, in order; empty when nothing was left to do.
    """

    plan: Plan
    summaries: tuple[Summary, ...]


class RunFailed(LmrError):
    """Some shards could not be made; all others are in storage."""

    def __init__(self, failed: Iterable[Receipt], skipped: int, summaries: Iterable[Summary] = ()) -> None:
        self.failed, self.skipped, self.summaries = tuple(failed), skipped, tuple(summaries)
        shown = "\n\n".join(receipt.error for receipt in self.failed[:10])
        more = f"\n\n… and {len(self.failed) - 10} more" if len(self.failed) > 10 else ""
        super().__init__(
            f"{len(self.failed)} shard(s) could not be made:\n\n{shown}{more}\n",
            got=f"{skipped} further shard(s) wait for them; what was finished stays",
            fix="mend the cause and run the same command again: only what is missing is made",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.failed, self.skipped, self.summaries)


def run(targets: Iterable[Step], root: str, where: Where, listener: Listener) -> Outcome:
    """Make all shards of the targets and of what they need.

    Parameters
    ----------
    targets
        The steps whose datasets are wanted.
    root
        The run's folder, at any fsspec URL that all workers reach.
    where
        Where to run.
    listener
        Is told of the progress.

    Raises
    ------
    RunFailed
        If shards could not be made; every other shard was, and is kept.
    ClusterError
        If the cluster cannot be reached or used.
    """
    plan = needed(list(targets), root)
    listener.planned(plan)
    if not any(need.missing for need in plan):
        return Outcome(plan, ())
    for need in plan:
        for source in need.step.inputs.values():
            if isinstance(source, Given) and need.missing:
                source.store(root)
    name = uuid.uuid4().hex
    try:
        with open_executor(where) as executor:
            listener.connected(executor.dashboard)
            graph = build_graph(plan, root, name, declared=executor.declared)
            summaries = executor.run(graph, listener.progressed)
    finally:
        storage.delete(storage.join(root, "attempts", name))
    failed = [receipt for summary in summaries for receipt in summary.failed]
    if failed:
        raise RunFailed(failed, sum(summary.skipped for summary in summaries), summaries)
    return Outcome(plan, tuple(summaries))
