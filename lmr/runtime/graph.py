"""Steps as one Dask graph: a layer per step, a task per shard.

Everything that reaches into Dask's graph format is in this file. `delayed` is quadratic at barriers and
collections lose resource annotations, so each step is one `MaterializedLayer` of one `HighLevelGraph`; a
barrier is a layer of one task that adds up receipts, which keeps edges linear in the number of shards.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dask._task_spec import List, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from lmr.errors import ClusterError
from lmr.runtime.steps import Each, Given, Job, Step, Summary, Whole, closure, make_shard, summarise

__all__ = ["Needed", "Plan", "RunGraph", "build_graph", "needed"]

Key = tuple[str, int]


@dataclass(frozen=True)
class Needed:
    """What a step still has to do.

    Attributes
    ----------
    step
        The step.
    missing
        The shards to make, in order.
    present
        How many shards are in storage.
    """

    step: Step
    missing: tuple[int, ...]
    present: int


Plan = list[Needed]


def needed(targets: Iterable[Step], root: str) -> Plan:
    """Look at storage and return what has to be made, inputs before users.

    A finished step needs nothing of its inputs, so deleting large early datasets does not bring them back.
    """
    steps = closure(targets)
    wanted: dict[str, set[int]] = {step.fingerprint: set() for step in steps}
    for target in targets:
        wanted[target.fingerprint] = set(range(target.shards))
    plan: Plan = []
    for step in reversed(steps):
        present = step.dataset(root).present()
        missing = sorted(wanted[step.fingerprint] - present.keys())
        for source in step.inputs.values():
            if isinstance(source, Each):
                wanted[source.fingerprint].update(missing)
            elif isinstance(source, Whole) and missing:
                wanted[source.fingerprint].update(range(source.step.shards))
        plan.append(Needed(step, tuple(missing), len(present)))
    return plan[::-1]


@dataclass(frozen=True)
class RunGraph:
    """A graph that makes what a plan needs.

    Attributes
    ----------
    graph
        One layer per step, one task per missing shard.
    final
        The key whose value is the list of all steps' summaries.
    groups
        The name that all keys of a step share, by step name: progress counts them.
    """

    graph: HighLevelGraph
    final: Key
    groups: Mapping[str, str]


def build_graph(plan: Plan, root: str, run: str, *, declared: frozenset[str] | None = None) -> RunGraph:
    """Lift the steps of a plan to one graph.

    Parameters
    ----------
    plan
        What `needed` returned.
    root
        The run's folder.
    run
        Names this attempt: its keys are fresh, so that Dask never answers with an earlier attempt's failure.
    declared
        Resources that the cluster's workers declare; None: not known. Where no worker declares `CPU`, it is
        not asked for: such a cluster was started without `--resources`, and every worker has a CPU.

    Raises
    ------
    ClusterError
        If a step needs another resource that no worker declares.
    """
    missing = {need.step.fingerprint: set(need.missing) for need in plan}
    layers: dict[str, MaterializedLayer] = {}
    dependencies: dict[str, set[str]] = {}
    summaries: list[TaskRef] = []
    groups: dict[str, str] = {}
    for need in plan:
        if not need.missing:
            continue
        step, group = need.step, _group(need.step, run)
        done = _done(step, run)
        job = Job.of(step, root, run)
        barriers: list[TaskRef] = []
        aligned: list[Step] = []
        for source in step.inputs.values():
            if isinstance(source, Given) or not missing[source.fingerprint]:
                continue
            if isinstance(source, Whole):
                barriers.append(TaskRef((_done(source.step, run), 0)))
            else:
                aligned.append(source.step)
        tasks: dict[Key, Task] = {}
        for shard in need.missing:
            waits = [TaskRef((_group(s, run), shard)) for s in aligned if shard in missing[s.fingerprint]]
            tasks[group, shard] = Task((group, shard), make_shard, job, shard, *barriers, *waits)
        asked = {k: v for k, v in step.resources.items() if declared is None or k in declared}
        if lacking := step.resources.keys() - asked.keys() - {"CPU"}:
            name = lacking.pop()
            raise ClusterError(
                f"the step {step.name} needs a worker with a {name}",
                got=f"workers that declare {', '.join(sorted(declared or ())) or 'no resources'}",
                fix=f"start workers with --resources {name}=1, or choose --device cpu",
            )
        layers[group] = MaterializedLayer(tasks, annotations={"resources": asked} if asked else None)
        dependencies[group] = {_group(s, run) for s in aligned} | {ref.key[0] for ref in barriers}
        receipts = List(*(TaskRef(key) for key in tasks))
        layers[done] = MaterializedLayer(
            {(done, 0): Task((done, 0), summarise, step.name, need.present, receipts)}
        )
        dependencies[done] = {group}
        summaries.append(TaskRef((done, 0)))
        groups[step.name] = group
    final = (f"finish-{_short(run)}", 0)
    layers[final[0]] = MaterializedLayer({final: Task(final, _all, List(*summaries))})
    dependencies[final[0]] = {ref.key[0] for ref in summaries}
    return RunGraph(HighLevelGraph(layers, dependencies), final, groups)


def _all(summaries: list[Summary]) -> list[Summary]:
    return summaries


def _group(step: Step, run: str) -> str:
    # Dask's dashboard drops a last word of eight hex digits: one bar per step name, whatever the run.
    return f"{step.name}-{_short(run + step.fingerprint)}"


def _done(step: Step, run: str) -> str:
    return f"{step.name}_done-{_short(run + step.fingerprint)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
