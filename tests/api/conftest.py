"""A rendered world with a few damaged photos, and the retrieval workflow run on it once, from Python."""

from pathlib import Path

import pytest

import lmr
from tests.support.world import make

SMALL = {"ingest.photos_per_shard": 10}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> lmr.Results:
    """The results of a run in this process, everything given as a path.

    VLAD describes its photos: a network's numbers differ in the last digits alone and in a batch.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMR_CACHE", str(tmp_path_factory.mktemp("cache")))
        return lmr.retrieve(
            world / "gallery",
            world / "queries",
            tmp_path_factory.mktemp("runs") / "run",
            solution=world / "solution.csv",
            descriptor="vlad",
            settings=SMALL,
            workers=0,
            progress=False,
        )
