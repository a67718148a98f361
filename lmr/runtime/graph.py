"""Steps as one Dask graph: a layer per step, a task per shard. Steps of one name share a layer.

Everything that reaches into Dask's graph format is in this file. `delayed` is quadratic at barriers and
collections lose resource annotations, so each step is one `MaterializedLayer` of one `HighLevelGraph`; a
barrier is a layer of one task that adds up receipts, which keeps edges linear in the number of shards.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dask._task_spec import List, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from lmr.errors import ClusterError, SettingsError
from lmr.runtime.finish import Finalizer, finish
from lmr.runtime.settings import Part
from lmr.runtime.steps import Each, Source, Step, Whole, closure
from lmr.runtime.tasks import ShardTask, make_shard, summarise
from lmr.storage.datasets import locate

__all__ = ["Plan", "RunGraph", "StepPlan", "dask_graph", "make_plan", "start_text", "unmet_notes"]

Key = tuple[str, int]

MOST_TASK_BYTES = 10**13
"""Memory of a task; the largest servers have about as much."""

MOST_STORED_BYTES = 10**15
"""Of one step: a petabyte."""

MOST_SHARDS = 10**7
"""Of one step; a scheduler takes about 1 kB for each."""


@dataclass(frozen=True)
class StepPlan:
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run has to do.

    Attributes
    ----------
    root
        The run's folder, at any fsspec URL that all workers reach.
    steps
        What each step still has to do, inputs before users.
    workflow
        Name of the workflow, for people.
    finalizer
        Called by the last task when every shard is there: writes what people read.
    """

    root: str
    steps: tuple[StepPlan, ...]
    workflow: str = "run"
    finalizer: Finalizer | None = None

    def __iter__(self) -> Iterator[StepPlan]:
        return iter(self.steps)

    @property
    def totals(self) -> dict[str, int]:
        """Step name to number of shards to make; empty when nothing is left to do."""
        totals: Counter[str] = Counter()
        for part in self.steps:
            totals[part.step.name] += len(part.missing)
        return {name: total for name, total in totals.items() if total}


def make_plan(
    targets: Iterable[Step], root: str, *, workflow: str = "run", finalizer: Finalizer | None = None
) -> Plan:
    """Look at storage and return what has to be made.

    A finished step needs nothing of its inputs, so deleting large early datasets does not bring them back.

    Parameters
    ----------
    targets
        The steps whose datasets are wanted.
    root
        The run's folder, at any fsspec URL that all workers reach.
    workflow
        Name of the workflow, for people.
    finalizer
        Called when every shard is there, on a worker if there are some: writes what people read.

    Raises
    ------
    SettingsError
        If a step that has something to do would take more than any machine or storage has.
    """
    targets = list(targets)
    steps = closure(targets)
    for step in steps:
        _check(step, "shards", step.shards, MOST_SHARDS)
    wanted: dict[str, set[int]] = {step.fingerprint: set() for step in steps}
    for target in targets:
        wanted[target.fingerprint] = set(range(target.shards))
    plan: list[StepPlan] = []
    for step in reversed(steps):
        present = step.dataset(root).present()
        missing = sorted(wanted[step.fingerprint] - present.keys())
        for source in step.inputs.values():
            if isinstance(source, Each):
                for part, shard in (locate(source.step.parts, i) for i in missing):
                    wanted[part.fingerprint].add(shard)
            elif isinstance(source, Whole) and missing:
                for part in source.step.parts:
                    wanted[part.fingerprint].update(range(part.shards))
        if missing:
            _check_costs(step)
        plan.append(StepPlan(step, tuple(missing), len(present)))
    return Plan(root=root, steps=tuple(plan[::-1]), workflow=workflow, finalizer=finalizer)


def _check_costs(step: Step) -> None:
    """Refuse a step that no machine can make: its settings are a slip of the pen."""
    cost = step.cost
    _check(step, "bytes of memory for one task", cost.peak_bytes, MOST_TASK_BYTES)
    _check(step, "bytes that each machine unpacks", cost.mapped_bytes, MOST_STORED_BYTES)
    _check(step, "bytes in storage", cost.rows * cost.bytes_per_row, MOST_STORED_BYTES)


def _check(step: Step, what: str, figure: float, most: int) -> None:
    if not figure <= most:  # what is no number is refused too
        raise SettingsError(
            f"no machine can make the step {step.name}",
            got=f"{figure:.3g} {what}, where {most:.0e} is the most",
            fix=f"choose smaller settings for it ({_numbers(step)}), or fewer photos",
        )


def _numbers(step: Step) -> str:
    """Return a step's numeric settings, the largest first, for an error."""
    settings = step.settings
    values = settings.values if isinstance(settings, Part) else vars(settings)
    numbers = {n: v for n, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    largest = sorted(numbers.items(), key=lambda item: -abs(item[1]))
    return ", ".join(f"{name} = {value}" for name, value in largest[:4]) or "it has none of its own"


@dataclass(frozen=True)
class RunGraph:
    """A graph that makes what a plan needs.

    Attributes
    ----------
    graph
        One layer per step, one task per missing shard.
    final
        The key whose value is the run's `RunReport`.
    groups
        The name that all keys of a step share, by step name: progress counts them.
    """

    graph: HighLevelGraph
    final: Key
    groups: Mapping[str, str]


def dask_graph(
    plan: Plan, run: str, *, declared: frozenset[str] | None = None, grant: str | None = None
) -> RunGraph:
    """Lift the steps of a plan to one graph.

    Parameters
    ----------
    plan
        What is to be made.
    run
        Names this attempt: its keys are fresh, so that Dask never answers with an earlier attempt's failure.
    declared
        Resources that the cluster's workers declare; None: not known.
    grant
        A resource that every task asks for: only workers that were admitted to the run have it.

    Raises
    ------
    ClusterError
        If a step needs another resource that no worker declares.
    """
    missing = {need.step.fingerprint: set(need.missing) for need in plan}
    keys = _Keys(plan, run)
    tasks: dict[str, dict[Key, Task]] = defaultdict(dict)
    annotations: dict[str, dict[str, Any]] = {}
    dependencies: dict[str, set[str]] = defaultdict(set)
    summaries: list[TaskRef] = []
    present: Counter[str] = Counter()
    for need in plan:
        present[need.step.name] += need.present
    for need in plan:
        if not need.missing:
            continue
        step, group = need.step, keys.group(need.step.name)
        shared = ShardTask.of(step, plan.root)
        barriers: list[TaskRef] = []
        aligned: list[Source] = []
        for source in step.inputs.values():
            if isinstance(source, Whole):
                unfinished = [part for part in source.step.parts if missing[part.fingerprint]]
                barriers += [TaskRef(keys.done(part)) for part in unfinished]
            elif isinstance(source, Each):
                aligned.append(source.step)
        made: list[TaskRef] = []
        for shard in need.missing:
            parts = [locate(source.parts, shard) for source in aligned]
            waits = [TaskRef(keys.shard(part, i)) for part, i in parts if i in missing[part.fingerprint]]
            key = keys.shard(step, shard)
            tasks[group][key] = Task(key, make_shard, shared, shard, *barriers, *waits)
            dependencies[group].update(ref.key[0] for ref in [*barriers, *waits])
            made.append(TaskRef(key))
        annotations[group] = _asking(_resources(step, declared), grant)
        done = keys.done(step)
        # What was there before counts once per name, whichever of its steps comes first.
        tasks[done[0]][done] = Task(done, summarise, step.name, present.pop(step.name, 0), List(*made))
        dependencies[done[0]].add(group)
        annotations[done[0]] = _asking({}, grant)
        summaries.append(TaskRef(done))
    final = (f"finish-{_short(run)}", 0)
    tasks[final[0]] = {final: Task(final, finish, run, plan.root, plan.finalizer, List(*summaries))}
    annotations[final[0]] = _asking({"CPU": 1} if declared is None or "CPU" in declared else {}, grant)
    dependencies[final[0]] = {ref.key[0] for ref in summaries}
    layers = {name: MaterializedLayer(made, annotations.get(name) or None) for name, made in tasks.items()}
    groups = {need.step.name: keys.group(need.step.name) for need in plan if need.missing}
    return RunGraph(HighLevelGraph(layers, dependencies), final, groups)


def _resources(step: Step, declared: frozenset[str] | None) -> dict[str, float]:
    """Return what a step's tasks ask of a worker, of what the workers declare."""
    if declared is None:
        return dict(step.resources)
    asked = step.asked(declared)
    if lacking := asked.keys() - declared:
        name = lacking.pop()
        raise ClusterError(
            f"the step {step.name} needs a worker with a {name}",
            got=f"workers that declare {', '.join(sorted(declared)) or 'no resources'}",
            fix=f"{start_text([name])}; or choose --device cpu",
        )
    return asked


def unmet_notes(plan: Iterable[StepPlan], declared: frozenset[str] | None) -> tuple[str, ...]:
    """Say of steps that prefer a GPU that no worker has one, and what follows for one that joins later."""
    if declared is None:
        return ()
    unmet = [one.step for one in plan if one.missing and not one.step.prefers.keys() <= declared]
    if not unmet:
        return ()
    wanted = " and ".join(sorted({name for step in unmet for name in step.prefers.keys() - declared}))
    return (
        f"no worker has a {wanted}, so others make {', '.join(step.name for step in unmet)}; one that joins "
        "later takes no part in these steps: to use it, cancel the run and submit it again, which keeps what "
        "is finished",
    )


def start_text(resources: Iterable[str]) -> str:
    """Return how workers are started that declare some resources.

    Examples
    --------
    >>> start_text(["GPU"])
    'start workers there: lmr cluster worker SCHEDULER --gpu'
    """
    further = [name for name in resources if name not in ("CPU", "GPU")]
    if further:
        asked = " ".join(f"{name}=1" for name in resources)
        return f'start workers there: dask worker SCHEDULER --nthreads 1 --resources "{asked}"'
    return f"start workers there: lmr cluster worker SCHEDULER{' --gpu' if 'GPU' in resources else ''}"


def _asking(resources: Mapping[str, float], grant: str | None) -> dict[str, Any]:
    """Return the annotations of tasks that ask for resources, and for the run's grant if there is one."""
    asked = {**resources, grant: 1} if grant is not None else dict(resources)
    return {"resources": asked} if asked else {}


class _Keys:
    """Names tasks: a group per step name, in which the shards of all steps of that name are numbered through.

    So the dashboard and the progress bars show one bar per name, whatever the number of generations.
    """

    def __init__(self, plan: Plan, run: str) -> None:
        self.run = run
        self.first: dict[str, int] = {}
        shards: Counter[str] = Counter()
        for need in plan:
            self.first[need.step.fingerprint] = shards[need.step.name]
            shards[need.step.name] += need.step.shards

    def group(self, name: str) -> str:
        # Dask's dashboard drops a last word of eight hex digits: one bar per step name, whatever the run.
        return f"{name}-{_short(self.run + name)}"

    def shard(self, step: Step, shard: int) -> Key:
        return self.group(step.name), self.first[step.fingerprint] + shard

    def done(self, step: Step) -> Key:
        return f"{step.name}_done-{_short(self.run + step.name)}", self.first[step.fingerprint]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
