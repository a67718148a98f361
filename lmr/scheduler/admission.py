"""Which workers a scheduler admits to a run: each is judged for each run, whenever it joins.

A run's tasks ask for a resource of the run's own, which a worker has only once it was granted. Until then
its tasks wait for other workers. Dask's own books are used as they are: `WorkerState.resources` and the
scheduler's index of them, since `Scheduler.add_resources` forgets what running tasks use.
"""

import asyncio
import pickle
import time
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from distributed.comm import connect
from distributed.scheduler import Scheduler, WorkerState

from lmr.cluster.admission import AMPLE, Expectations, as_one_line, check_facts, check_memory, grant_of
from lmr.cluster.preflight import clock_note, left_out, unreachable
from lmr.cluster.worker import REACH_SECONDS
from lmr.errors import ClusterError, LmrError, one_line

__all__ = ["Admission"]

ANSWER_SECONDS = 120.0
"""How long a worker may look around; busy storage is waited for a minute."""

TRIES, PAUSE_SECONDS = 3, 5.0
"""How often, and how long apart, a worker is asked that did not answer."""

LOOK_AGAIN_SECONDS = 30.0
"""How often a worker looks around again that found something missing."""

HELLO_SECONDS = 60.0
"""How long a worker that joined may take to say what it runs; a host starts a hundred at once."""

_PEERS_ASKED = 3
_TOLD_SECONDS = 0.5


@dataclass
class _Run:
    """What a run expects, and what was noticed about workers since it began."""

    expected: Expectations
    pickled: bytes
    judged: dict[str, bool] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


class _Surroundings(ClusterError):
    """A worker is good; what it finds around it is not."""


class Admission:
    """Judges workers, grants them the runs' resources, and keeps what is to be told about the others."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.runs: dict[str, _Run] = {}
        self.facts: dict[str, Mapping[str, str | None]] = {}
        self.clocks: dict[str, float] = {}
        self.reached: set[str] = set()
        self.silent: dict[str, str] = {}
        self.examined: dict[str, float] = {}
        self.going_on: set[asyncio.Task[None]] = set()

    # What the plugin tells.

    def expect(self, run: str, pickled: bytes) -> None:
        """Judge all workers, those that are here and those that come, for a run."""
        self.runs[run] = _Run(expected=pickle.loads(pickled), pickled=pickled)
        for worker in self.reached & self.facts.keys():
            self._start(self._admit(worker, run))

    def forget(self, run: str) -> list[str]:
        """Take a run's resource back from all workers; return what was noticed."""
        known = self.runs.pop(run, None)
        grant = grant_of(run)
        self.scheduler.resources.pop(grant, None)
        for worker in self.scheduler.workers.values():
            # What running tasks use of it stays on the books until they end.
            worker.resources.pop(grant, None)
        return known.notices if known else []

    def notices(self, run: str) -> tuple[str, ...]:
        """Return what was noticed of workers since a run began."""
        return tuple(self.runs[run].notices) if run in self.runs else ()

    def waits(self, run: str) -> bool:
        """Tell whether no worker is admitted to a run yet, and some are still being judged."""
        judged = self.runs[run].judged
        return not any(judged.values()) and any(worker not in judged for worker in self.scheduler.workers)

    def admitted(self, run: str) -> int:
        """Return how many workers are admitted to a run."""
        return sum(self.runs[run].judged.values())

    def workers(self, run: str) -> list[WorkerState]:
        """Return the workers that are admitted to a run."""
        judged = self.runs[run].judged if run in self.runs else {}
        return [state for address, state in self.scheduler.workers.items() if judged.get(address)]

    def joined(self, worker: str) -> None:
        """Note that a worker has joined; it has yet to say what it runs."""
        self.silent[worker] = self._named(worker)
        self._start(self._await_hello(worker))

    def found(self, worker: str) -> None:
        """Note that a worker was there before this was; one that cannot be reached is closed."""
        self.joined(worker)
        self._start(self._look_for(worker))

    def hello(self, worker: str, facts: Mapping[str, str | None], clock: float | None) -> None:
        """Judge a worker that says what it runs."""
        self.facts[worker] = facts
        self.silent.pop(worker, None)
        self.clocks[worker] = clock - time.time() if clock is not None else 0.0
        self._start(self._welcome(worker))

    def lost(self, worker: str) -> None:
        """Forget a worker that has left."""
        if self.facts.pop(worker, None) is None and worker in self.silent:
            name = self.silent[worker]
            self._notice(f"{name} left before it said what it runs: see its log, and whether lmr is there")
        self.silent.pop(worker, None)
        self.reached.discard(worker)
        self.clocks.pop(worker, None)
        self.examined.pop(worker, None)
        for known in self.runs.values():
            known.judged.pop(worker, None)

    def examine(self, worker: str, holders: Iterable[str]) -> None:
        """Find out why a worker does not get results that others hold, unless that was done lately."""
        now = time.monotonic()
        if now - self.examined.get(worker, -ANSWER_SECONDS) >= ANSWER_SECONDS:
            self.examined[worker] = now
            self._start(self._examine(worker, set(holders)))

    def close(self) -> None:
        """Leave with the scheduler."""
        for task in self.going_on:
            task.cancel()

    # How it is done.

    async def _await_hello(self, worker: str) -> None:
        await asyncio.sleep(HELLO_SECONDS)
        if worker in self.silent:
            self._notice(
                f"{self.silent[worker]} gets no tasks: it has not said in {HELLO_SECONDS:.0f} s "
                "what it runs; see its log, and whether the same lmr is installed there"
            )

    async def _look_for(self, worker: str) -> None:
        name = self._named(worker)
        # It may be at work for others, who hold its interpreter for a while.
        if not await self._reaches(worker, tries=TRIES):
            self._close(worker, unreachable(name, worker))

    async def _welcome(self, worker: str) -> None:
        name = self._named(worker)
        if not await self._reaches(worker):
            self._close(worker, unreachable(name, worker))
            return
        if peers := await self._peers_that_fail(worker):
            self._close(worker, unreachable(name, worker, caller=f"{self._named(peers[0])}"))
            return
        self.reached.add(worker)
        for run in list(self.runs):
            await self._admit(worker, run)

    async def _admit(self, worker: str, run: str) -> None:
        """Judge a worker for a run: by what it runs and has first, then by what it finds around it.

        What it finds may be mended while it runs (a folder mounted, weights brought): it is looked at again.
        """
        tries = 0
        while True:
            state, known = self.scheduler.workers.get(worker), self.runs.get(run)
            if state is None or known is None:
                return
            try:
                self._judge(state, known)
                await self._look(state, known, grant_of(run))
            except LmrError as error:
                known.judged[worker] = False
                line = left_out(error)
                if line not in known.notices:
                    self._tell(worker, f"no tasks of {run}: {as_one_line(error)}")
                self._notice(line, run)
                if not isinstance(error, _Surroundings):
                    return
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
            except Exception as error:
                tries += 1
                if tries == TRIES:
                    known.judged[worker] = False
                    got = one_line(error, 150)
                    self._notice(
                        f"{self._named(worker)} gets no tasks of this run: it was asked, got {got}", run
                    )
                    return
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                if known.judged.get(worker) is False:
                    self._notice(f"{self._named(worker)} passes now, and takes part", run)
                self._grant(state, known, run)
                return

    def _judge(self, state: WorkerState, known: _Run) -> None:
        name = self._named(state.address)
        check_facts(name, self.facts.get(state.address, {}), known.expected.facts)
        check_memory(name, known.expected.needs, state.resources, state.memory_limit)

    async def _look(self, state: WorkerState, known: _Run, grant: str) -> None:
        asked = self.scheduler.rpc(state.address).lmr_look(expected=known.pickled, grant=grant)
        answer = await asyncio.wait_for(asked, ANSWER_SECONDS)
        for error in answer["errors"]:
            raise _Surroundings(f"{self._named(state.address)} cannot do its part: {error}")

    def _grant(self, state: WorkerState, known: _Run, run: str) -> None:
        if self.runs.get(run) is not known or state is not self.scheduler.workers.get(state.address):
            return
        if note := clock_note(
            self._named(state.address), self.clocks[state.address], beside="the scheduler's"
        ):
            self._notice(note, run)
        grant = grant_of(run)
        state.resources[grant] = AMPLE
        state.used_resources.setdefault(grant, 0)
        self.scheduler.resources.setdefault(grant, {})[state.address] = AMPLE
        known.judged[state.address] = True
        # Tasks that no worker was admitted to wait for exactly this.
        runnable = self.scheduler.bulk_schedule_unrunnable_after_adding_worker(state)
        self.scheduler.transitions(runnable, stimulus_id=f"lmr-admit-{time.time()}")

    async def _reaches(self, worker: str, tries: int = 1) -> bool:
        """Tell whether the scheduler reaches a worker, and no other one that has the same address."""
        for _ in range(tries):
            try:
                comm = await connect(worker, timeout=REACH_SECONDS, **self.scheduler.connection_args)
                comm.abort()
                told = await asyncio.wait_for(self.scheduler.rpc(worker).identity(), ANSWER_SECONDS)
            except (OSError, TimeoutError):
                continue
            state = self.scheduler.workers.get(worker)
            return state is None or told["id"] == state.server_id
        return False

    async def _peers_that_fail(self, worker: str) -> list[str]:
        """Return the peers on other hosts that do not reach a worker, if none does."""
        workers = self.scheduler.workers
        if worker not in workers:
            return []
        host = workers[worker].host
        peers = [p for p in sorted(self.reached) if p in workers and workers[p].host != host][:_PEERS_ASKED]
        tried = await asyncio.gather(*(self._links(peer, worker) for peer in peers))
        failed = [peer for peer, good in zip(peers, tried, strict=True) if not good]
        return failed if len(failed) == len(peers) else []

    async def _links(self, one: str, other: str) -> bool:
        """Tell whether two workers reach each other.

        One that cannot be asked is not judged here, and nobody by it: it may have been cut off just now.
        """
        for caller, called in ((one, other), (other, one)):
            try:
                answer = await asyncio.wait_for(
                    self.scheduler.rpc(caller).lmr_reach(addresses=[called]), 3 * REACH_SECONDS
                )
            except (OSError, TimeoutError):
                return True
            if answer["unreached"]:
                return False
        return True

    async def _examine(self, worker: str, holders: set[str]) -> None:
        try:
            answer = await asyncio.wait_for(
                self.scheduler.rpc(worker).lmr_reach(addresses=sorted(holders)), 3 * REACH_SECONDS
            )
        except (OSError, TimeoutError):
            return
        for holder in answer["unreached"]:
            # Its results are in storage: whoever makes them again only finds them.
            self._close(holder, unreachable(self._named(holder), holder, caller=self._named(worker)))

    def _close(self, worker: str, error: ClusterError) -> None:
        if worker not in self.scheduler.workers:
            return
        self.examined[worker] = time.monotonic()
        self._notice(f"{as_one_line(error)} (it was closed)")
        self._tell(worker, as_one_line(error))
        self.scheduler.loop.call_later(_TOLD_SECONDS, self.scheduler.close_worker, worker)

    def _tell(self, worker: str, line: str) -> None:
        """Have a line written to a worker's own log, by the connection that the worker has opened."""
        if worker in self.scheduler.stream_comms:
            self.scheduler.stream_comms[worker].send({"op": "lmr-told", "line": line})

    def _notice(self, line: str, run: str | None = None) -> None:
        for name in [run] if run is not None else list(self.runs):
            if name in self.runs and line not in self.runs[name].notices:
                self.runs[name].notices.append(line)

    def _named(self, worker: str) -> str:
        state = self.scheduler.workers.get(worker)
        return f"the worker {state.name} on {state.host}" if state else f"the worker {worker}"

    def _start(self, going_on: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(going_on)
        self.going_on.add(task)
        task.add_done_callback(self.going_on.discard)
