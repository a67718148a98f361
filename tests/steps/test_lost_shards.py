"""A finished run that lost a shard, or has a damaged one, is closed and read again; what errors advise works.

Every dataset of a small run is taken through every damage. Where a command refuses, its own advice is
followed, and then everything must be as it was.
"""

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

import lmr as library
from lmr.errors import LmrError, ShardError
from lmr.testing import World, write_world
from tests.support.world import arguments, lmr, scores, submission

SMALL = World(
    landmarks=3,
    gallery_per_landmark=(2, 3),
    queries=5,
    distractors=4,
    queries_without_landmark=1,
    long_side_px=160,
    seed=3,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A world, a finished run of it, and the command that made it."""
    folder = tmp_path_factory.mktemp("lost")
    write_world(SMALL, folder / "world")
    command = arguments(
        folder / "world",
        folder / "run",
        *("--solution", str(folder / "world" / "solution.csv"), "--workers", "0"),
    )
    lmr(*command)
    shutil.copytree(folder / "run", folder / "kept")
    return folder, command


def shards(kept: Path) -> list[Path]:
    """Return the first shard of every dataset, below the run's folder."""
    return sorted(path.relative_to(kept) for path in kept.rglob("part-00000.parquet"))


def deleted(path):
    path.unlink()


def emptied(path):
    path.write_bytes(b"")


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


def another(path):
    """Put a shard of another dataset in its place."""
    others = [p for p in path.parents[2].rglob("part-00000.parquet") if p.parent != path.parent]
    path.write_bytes(others[0].read_bytes())


DAMAGES = [deleted, emptied, cut, flipped, another]


def read_all(root):
    """Read all that a user may ask of a run."""
    run = library.open_run(root)
    read = {stage: run.ranking(stage).to_csv() for stage in run.stages}
    read |= {"matches": run.matches().to_csv(), "pairs": run.pairs().to_csv()}
    read |= {"unusable": run.unusable().to_csv(), "scores": run.scores}
    run.costs()
    return read


def read_descriptors(root):
    """Read an early dataset, which a finished run does not bring back: read, or refused with a remedy."""
    with suppress(ShardError):
        return [library.open_run(root).descriptors(role).tobytes() for role in ("gallery", "queries")]
    with pytest.raises(ShardError, match="with another --out"):
        [library.open_run(root).descriptors(role) for role in ("gallery", "queries")]
    return None


def following(advice, action):
    """Do something; where it is refused, follow the advice and do it again."""
    for _ in range(3):
        try:
            return action()
        except LmrError as error:
            told = str(error)
            if "report it" in told:
                raise
            (delete,) = set(re.findall(r"delete (\S+) and run the same command again", told)) or [None]
            assert delete or "run the same command again" in told
            if delete:
                Path(delete).unlink()
            advice()
    raise AssertionError(told)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_finished_run_with_a_lost_or_damaged_shard_ends_well_again(finished, damage):
    folder, command = finished
    root, kept = folder / "run", folder / "kept"

    def again():
        shutil.rmtree(root)
        shutil.copytree(kept, root)

    again()
    right, early, known = read_all(root), read_descriptors(root), shards(kept)
    assert early is not None
    assert len(known) > 20
    failed = {}
    for shard in known:
        again()
        damage(root / shard)
        (root / "submission.csv").unlink()
        (root / "scores.json").unlink()
        try:
            following(lambda: None, lambda: lmr(*command))
            assert submission(root) == submission(kept)
            assert scores(root) == scores(kept)
            assert following(lambda: lmr(*command), lambda: read_all(root)) == right
            assert read_descriptors(root) in (None, early)
            report = (root / "report" / "index.html").read_text()
            if "images" in str(shard):
                assert "pictures are left out" in report
        except Exception as error:
            failed[str(shard)] = f"{type(error).__name__}: {error}"[:600]
    assert failed == {}, json.dumps(failed, indent=2)
