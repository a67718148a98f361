"""The course of a run: when its steps, shards and workers came and went, and what they took.

The scheduler keeps it while a run goes on (`lmr.scheduler.courses`), and the last task leaves it in the run's
folder as `course.json`. Times are seconds since the epoch by the scheduler's clock.
"""

from dataclasses import dataclass, field

from pydantic import TypeAdapter

from lmr import storage
from lmr.storage.json_files import read_json, write_json

__all__ = [
    "RECORD",
    "Course",
    "ShardSpan",
    "StepCourse",
    "WorkerCourse",
    "course_of",
    "course_text",
    "read_course",
    "store_course",
]

RECORD = "course.json"


@dataclass(frozen=True, kw_only=True)
class StepCourse:
    """The course of one step.

    Attributes
    ----------
    name
        The step's name.
    shards
        How many shards the run makes of it.
    made
        How many are in storage now, by this run.
    began, ended
        When its first task began and its last one ended; None before that.
    seconds, rows, bytes
        What its shards took and hold, all together.
    peak_bytes
        Most memory that a worker held while it made one.
    stated_bytes
        Memory of a worker that the step states; 0 where it is not known.
    begun_again
        How often a shard was begun that had been begun before.
    copies
        How many of these were speculative: the first worker was late, and another idle.
    """

    name: str
    shards: int
    made: int = 0
    began: float | None = None
    ended: float | None = None
    seconds: float = 0.0
    rows: int = 0
    bytes: int = 0
    peak_bytes: int = 0
    stated_bytes: float = 0.0
    begun_again: int = 0
    copies: int = 0


@dataclass(frozen=True, kw_only=True)
class WorkerCourse:
    """A worker's time in a run.

    Attributes
    ----------
    name
        Its host and port.
    joined, left
        When it came, or the run began, and when it went; None while it is there.
    shards
        How many shards it has made.
    lost
        Whether it went with a shard in hand.
    """

    name: str
    joined: float
    left: float | None = None
    shards: int = 0
    lost: bool = False


@dataclass(frozen=True, kw_only=True)
class ShardSpan:
    """A worker's time with a shard.

    Attributes
    ----------
    step, worker
        Their numbers in the lists of the course.
    shard
        The shard's number.
    began, ended
        When; `ended` is None while it is being made.
    made
        Whether it was in storage then.
    """

    step: int
    worker: int
    shard: int
    began: float
    ended: float | None = None
    made: bool = True


@dataclass(frozen=True, kw_only=True)
class Course:
    """The course of a run.

    Attributes
    ----------
    run, root, workflow, user, host
        As of `RunRecord`.
    since
        When it was submitted.
    now
        When this was written.
    state
        "running", or how it ended.
    steps, workers
        In order of their coming.
    spans
        The latest shards, at most some thousands.
    quarantined
        Step and shard of those that killed several workers and were set aside.
    deaths
        How many workers died with a shard of the run in hand.
    notes
        What was noticed of workers.
    usd_per_hour
        Price of a worker for an hour; None where nobody has said it.
    """

    run: str
    root: str
    workflow: str
    user: str
    host: str
    since: float
    now: float
    state: str = "running"
    steps: tuple[StepCourse, ...] = ()
    workers: tuple[WorkerCourse, ...] = ()
    spans: tuple[ShardSpan, ...] = ()
    quarantined: tuple[tuple[str, int], ...] = ()
    deaths: int = 0
    notes: tuple[str, ...] = field(default=())
    usd_per_hour: float | None = None

    @property
    def worker_seconds(self) -> float:
        """How long workers were there, all together."""
        return sum(max((w.left or self.now) - w.joined, 0.0) for w in self.workers)


_COURSE = TypeAdapter(Course)


def store_course(course: Course) -> None:
    """Write `course.json` into the run's folder."""
    write_json(storage.join(course.root, RECORD), _COURSE.dump_python(course, mode="json"))


def read_course(root: str) -> Course | None:
    """Return the course of the last run of a folder; None where none was kept.

    Raises
    ------
    StorageError
        If it is damaged.
    """
    url = storage.join(root, RECORD)
    if not storage.exists(url):
        return None
    found: Course = read_json(url, Course, fix=f"delete {url}: the next run writes it anew")
    return found


def course_text(course: Course) -> str:
    """Return a course as JSON, which any two processes of a cluster understand."""
    return _COURSE.dump_json(course).decode()


def course_of(text: str) -> Course:
    """Return the course that `course_text` wrote."""
    return _COURSE.validate_json(text)
