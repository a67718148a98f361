"""Preloaded into a worker, makes it one of an older kind: another processor, of a third of the speed."""

from lmr.cluster import worker

_here = worker.measure_speed

worker.processor = lambda: "an old processor"
worker.measure_speed = lambda: _here() / 3
