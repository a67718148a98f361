"""A step's shard function that leaves a mark for every call: who began it, and who came to its end."""

import json
import time
import uuid
from pathlib import Path

__all__ = ["calls_of", "counted"]


def counted(shard, settings, *, counted_make, counted_step, counted_in, seconds=0.0, **rest):
    """Call `counted_make`, which takes `seconds` longer here, and note it in the folder `counted_in`."""
    from distributed import get_worker

    who = {"step": counted_step, "shard": shard, "worker": get_worker().address, "name": get_worker().name}
    mark = Path(counted_in) / f"{time.time_ns()}-{uuid.uuid4().hex}"
    mark.with_suffix(".began").write_text(json.dumps(who))
    time.sleep(seconds)
    rows = counted_make(shard, settings, **rest)
    mark.with_suffix(".ended").write_text(json.dumps(who))
    return rows


def calls_of(folder, suffix=".began"):
    """Return the marks of a folder, in order of time; `at` is the second in which a mark was left."""
    return [
        {**json.loads(path.read_text()), "at": path.stat().st_mtime}
        for path in sorted(Path(folder).glob(f"*{suffix}"))
        if path.stat().st_size
    ]
