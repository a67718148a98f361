"""Prometheus metrics of runs, beside Dask's own at the scheduler's `/metrics`."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from lmr.runtime.course import Course

__all__ = ["RunMetrics"]


class RunMetrics:
    """Tells Prometheus how far the runs of a scheduler are.

    Dask serves `/metrics` where `prometheus-client` is installed; without it, nothing is told.

    Parameters
    ----------
    courses
        Returns the courses of the runs that are going on.
    """

    def __init__(self, courses: Callable[[], list[Course]]) -> None:
        self.courses = courses

    def register(self) -> None:
        """Tell from now on."""
        with suppress(ModuleNotFoundError):
            import prometheus_client

            prometheus_client.REGISTRY.register(self)

    def unregister(self) -> None:
        """Tell no more."""
        with suppress(ModuleNotFoundError, KeyError):
            import prometheus_client

            prometheus_client.REGISTRY.unregister(self)

    def describe(self) -> list[Any]:
        """Return no metrics: names are known when there is a run."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the metrics, as `prometheus_client` asks for them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        by_step = ["run", "step"]
        wanted = GaugeMetricFamily("lmr_shards_wanted", "Shards that the run makes", labels=by_step)
        made = CounterMetricFamily("lmr_shards_made", "Shards that are in storage now", labels=by_step)
        seconds = CounterMetricFamily("lmr_worker_seconds", "What these shards took", labels=by_step)
        size = CounterMetricFamily("lmr_written_bytes", "What these shards hold", labels=by_step)
        again = CounterMetricFamily("lmr_begun_again", "Shards begun once more", labels=by_step)
        copies = CounterMetricFamily("lmr_speculative_copies", "Of these, started while late", labels=by_step)
        peak = GaugeMetricFamily("lmr_peak_memory_bytes", "Most memory of a worker", labels=by_step)
        stated = GaugeMetricFamily("lmr_stated_memory_bytes", "Memory that the step states", labels=by_step)
        workers = GaugeMetricFamily("lmr_workers", "Workers that are there", labels=["run"])
        deaths = CounterMetricFamily("lmr_worker_deaths", "Workers that died at a shard", labels=["run"])
        aside = GaugeMetricFamily("lmr_quarantined_shards", "Shards that were set aside", labels=["run"])
        for course in self.courses():
            for step in course.steps:
                for metric, value in (
                    (wanted, step.shards),
                    (made, step.made),
                    (seconds, step.seconds),
                    (size, step.bytes),
                    (again, step.begun_again),
                    (copies, step.copies),
                    (peak, step.peak_bytes),
                    (stated, step.stated_bytes),
                ):
                    metric.add_metric([course.run, step.name], value)
            workers.add_metric([course.run], sum(worker.left is None for worker in course.workers))
            deaths.add_metric([course.run], course.deaths)
            aside.add_metric([course.run], len(course.quarantined))
        yield from (wanted, made, seconds, size, again, copies, peak, stated, workers, deaths, aside)
