"""Preloaded into a worker, makes it one of an older kind: another processor, of a third of the speed."""

from lmr.runtime import workers

_here = workers.measure_speed

workers.processor = lambda: "an old processor"
workers.measure_speed = lambda: _here() / 3
