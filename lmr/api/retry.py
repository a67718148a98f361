"""Try again what failed for a reason that may pass, and make again what depends on it."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lmr import storage
from lmr.api.choices import Choices
from lmr.api.prepare import Prepared, prepare
from lmr.api.workflows import build_workflow, load_workflow
from lmr.cluster.client import Where
from lmr.errors import LmrError, SettingsError
from lmr.runtime.adopt import adopt, copy_shard
from lmr.runtime.graph import make_plan
from lmr.runtime.steps import Step, closure
from lmr.scheduler.run import Listener
from lmr.scheduler.run import run as run_steps
from lmr.steps.both import Both
from lmr.steps.photos.retry import Retry, retry_photos
from lmr.steps.photos.tries import read_tries, store_tries, with_tries
from lmr.steps.photos.web import WebSettings
from lmr.steps.results.folder.datasets import open_datasets
from lmr.text import counted, printable

__all__ = ["Retried", "prepare_again", "retry_failed"]

_MOVED = (
    "put the photos back, or run the command of this run once more with the place where they are now: "
    "`lmr info` tells the command"
)
_AGAIN = "run the command of the run once more: it tries again what is missing, and notes what a retry needs"


@dataclass(frozen=True)
class Retried:
    """What a retry has brought.

    Attributes
    ----------
    prepared
        The workflow with the photos that are there now; to be run, which makes again what depends on them.
    sentences
        What the user should know, without full stops.
    """

    prepared: Prepared
    sentences: tuple[str, ...]


def prepare_again(root: str) -> Prepared:
    """Prepare the workflow that was run last in a folder, with the same choices and settings.

    Raises
    ------
    LmrError
        If there is no run, or it began from descriptors, or an earlier lmr made it.
    """
    run = open_datasets(root, unfinished=True)
    about = run.about
    if run.images is None:
        raise SettingsError(
            "this run has no photos that could be tried again",
            got="descriptors",
            fix="run its command once more: only what is missing is made",
        )
    if "choices" not in about or (run.recognised and "labels" not in about["choices"]):
        raise LmrError("an earlier lmr made this run", got=printable(root), fix=_AGAIN)
    workflow, more = about["choices"]["workflow"], {**about["choices"]}
    del more["workflow"]
    choices = Choices(
        out=root,
        gallery=about.get("gallery"),
        queries=about.get("queries"),
        solution=about.get("solution"),
        preset=about["preset"],
        settings=run.settings,
        calibration=run.calibration,
        **more,
    )
    try:
        prepared = prepare(workflow, choices)
    except LmrError as error:
        if not (error.fix or "").startswith(("give --gallery ", "give --queries ")):
            raise
        # The photos have moved, and a retry has no such options.
        raise LmrError(error.what, got=error.got, fix=_MOVED) from error
    kept = {name: about[name] for name in ("command", "preset_settings", "workflow") if name in about}
    return replace(prepared, about={**prepared.about, **kept})


def retry_failed(
    prepared: Prepared, where: Where, listener: Listener | None = None, tell: Callable[[str], None] = print
) -> Retried:
    """Try the photos of a run again that could not be had, and take over all that does not depend on them.

    Parameters
    ----------
    prepared
        The workflow, as it was run.
    where
        Where the tries run.
    listener
        Is told of the progress.
    tell
        Takes sentences while the work goes on.

    Returns
    -------
    What was had, and the workflow to run now.
    """
    root, flow = prepared.root, prepared.flow
    assert flow.images is not None
    before = flow.inputs.photos.map(lambda photos: read_tries(photos.role, root))
    attempt = max((*before.gallery.values(), *before.queries.values()), default=1) + 1
    retries = _retries(prepared, attempt)
    count = sum(retry.count for retry in retries)
    if not count:
        missing = sum(make_plan(flow.targets, root).totals.values())
        is_missing = counted(missing, "shard is missing, and is", "shards are missing, and are")
        more = f"; {is_missing} made now" if missing else ""
        return Retried(prepared, (f"no photo failed for a reason that may pass{more}",))
    tell(f"{count:,} {'photo is' if count == 1 else 'photos are'} tried again")
    # A try that was broken off goes on where it was.
    run_steps([retry.step for retry in retries], root, where, listener, workflow="retry")
    had = Both[dict[str, int]]({}, {})
    changed: dict[str, list[int]] = {}
    reasons: Counter[str] = Counter()
    for retry in retries:
        good, still = retry.outcome(root)
        changed[retry.images.fingerprint] = list(good)
        rows = itertools.chain.from_iterable(good.values())
        had.of(retry.photos.role).update((retry.path(row), attempt) for row in rows)
        reasons.update(still)
    found = sum(map(len, had.values()))
    still_text = f"; still not: {_counted(reasons)}" if reasons else ""
    sentences = [f"{found:,} of {count:,} {'is' if found == 1 else 'are'} there now{still_text}"]
    if found:
        tries = before.zip(had).map(lambda pair: {**pair[0], **pair[1]})
        after = _with_tries(prepared, tries)
        _write(retries, zip(closure(flow.targets), closure(after.flow.targets), strict=True), changed, root)
        adopted = adopt(flow.targets, after.flow.targets, changed, root)
        # Last: until here the run is as it was, and may be retried once more.
        for role, tried in tries.items():
            store_tries(role, root, tried)
        again = ", ".join(f"{name} {shards:,}" for name, shards in adopted.changed.items() if shards)
        kept = sum(adopted.kept.values())
        stay = counted(kept, "shard stays as it is", "shards stay as they are")
        sentences.append(f"{stay}; shards that change: {again}")
    else:
        after = prepared
        sentences.append("nothing is made again")
    for retry in retries:
        storage.delete(retry.step.dataset(root).url)  # so that the next try is a new one
    return Retried(after, tuple(sentences))


def _counted(reasons: Counter[str], kinds: int = 5) -> str:
    """Return the most frequent reasons, with how many photos each is that of."""
    told = [f"{count:,} {printable(reason)}" for reason, count in reasons.most_common(kinds)]
    return ", ".join(told) + (" …" if len(reasons) > kinds else "")


def _retries(prepared: Prepared, attempt: int) -> list[Retry]:
    """Look for photos to try again in all generations."""
    images, settings = prepared.flow.images, prepared.settings
    assert images is not None
    web = getattr(settings, "web", None) or WebSettings()
    found = []
    for role, source in images.items():
        for photos, step in zip(
            prepared.flow.inputs.photos.of(role).generations(), source.parts, strict=True
        ):
            if (retry := retry_photos(photos, step, prepared.root, attempt, web)) is not None:
                found.append(retry)
    return found


def _with_tries(prepared: Prepared, tries: Both[dict[str, int]]) -> Prepared:
    """Return the workflow of the photos that are there now."""
    inputs = prepared.flow.inputs
    photos = inputs.photos.zip(tries).map(lambda pair: with_tries(*pair))
    module = load_workflow(prepared.about["choices"]["workflow"])
    return replace(prepared, flow=build_workflow(module, replace(inputs, photos=photos), prepared.settings))


def _write(
    retries: Sequence[Retry],
    pairs: Iterable[tuple[Step, Step]],
    changed: Mapping[str, Sequence[int]],
    root: str,
) -> None:
    """Write the shards of photos that have changed, under the names of the new steps."""
    new = {old.fingerprint: step for old, step in pairs}
    for retry in retries:
        source = retry.step.dataset(root)
        target = new[retry.images.fingerprint].dataset(root)
        for shard in changed[retry.images.fingerprint]:
            copy_shard(source, retry.shards.index(shard), target, shard)
