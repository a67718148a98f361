"""Thread pools are held to a process's share, and a process that starts workers can still compile."""

import os
import subprocess
import sys

from lmr.runtime.threads import malloc_environment, thread_environment, threads

COMPILES = """
import os
import numba
from lmr.runtime.threads import limit_threads, thread_environment

os.environ.update(thread_environment())  # as Dask's nanny does in the process that starts workers
limit_threads()
numba.njit(lambda x: x + 1)(1)
for name in thread_environment():
    del os.environ[name]
print(numba.njit(lambda x: x + 2)(1))
"""


def test_pools_are_held_to_the_share_of_a_task(monkeypatch):
    monkeypatch.delenv("LMR_THREADS", raising=False)
    assert threads() == 1
    assert set(thread_environment().values()) == {"1"}
    monkeypatch.setenv("LMR_THREADS", "3")
    assert set(thread_environment().values()) == {"3"}
    monkeypatch.setenv("LMR_THREADS", "many")
    assert threads() == 1


def test_a_process_whose_environment_changes_still_compiles():
    done = subprocess.run([sys.executable, "-c", COMPILES], capture_output=True, text=True)
    assert done.stdout == "3\n", done.stderr


def test_arrow_takes_its_memory_of_glibc_in_a_worker():
    asked = "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    environment = os.environ | malloc_environment()
    done = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True)
    assert done.stdout == "system\n", done.stderr
