"""The tasks of every step as a contest has them, each on what stands for its inputs; see `rehearsal.py`."""

import argparse
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from _rehearsal_data import (
    Made,
    noise_of,
    regions_of,
    repeated_photos,
    ring_of,
    theme_order,
    world_of,
    write_candidates,
    write_descriptors,
    write_features,
    write_pairs,
    write_rankings,
    write_sizes,
)
from _rehearsal_task import (
    AGAIN_IF_SMALL_SECONDS,
    AGAIN_SECONDS,
    Copies,
    Took,
    apart,
    at_units,
    linked,
)
from numpy.typing import NDArray

from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.steps.both import Both
from lmr.steps.inputs import Inputs
from lmr.steps.photos.imagined import imagined
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.folder.files import store_submission
from lmr.steps.results.report.report import store_report
from lmr.steps.workflow import Workflow
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from workflows.retrieval import PRESETS, build

__all__ = ["Rehearsal", "Size", "declared"]

BY_INDEX = {name: {"exact_below": 1} for name in ("neighbours", "rank", "graph")}
"""So that smaller galleries are searched in the same way, and a law can be seen."""


@dataclass(frozen=True)
class Size:
    """How large a gallery is, and what of it a rehearsal makes."""

    gallery: int
    queries: int
    photos_per_shard: int
    features: int
    indexed_shards: int = 16
    """Gallery shards whose features are there, and are indexed."""
    known_shards: int = 10
    """Query shards whose features are there."""
    searched: int = 64
    """Queries that search the whole gallery by local features."""

    @property
    def links(self) -> int:
        """How often what is indexed makes up the gallery."""
        return math.ceil(self.gallery / (self.photos_per_shard * self.indexed_shards))


def declared(size: Size, options: argparse.Namespace, by_index: bool = False) -> tuple[Workflow, Any]:
    """Declare the default workflow for so many photos; return it, and its settings."""
    changes = {
        "ingest": {"photos_per_shard": size.photos_per_shard},
        "local": {"max_features": size.features},
        "index": {"gallery_shards_per_index": size.indexed_shards},
        **(BY_INDEX if by_index else {}),
    }
    settings = layer(PRESETS[options.preset], changes)
    photos = Both(imagined("gallery", size.gallery), imagined("queries", size.queries))
    return build(Inputs(photos=photos), settings), settings


class Rehearsal:
    """The steps of one size of gallery: what they read, and what their tasks take."""

    def __init__(self, size: Size, root: str, options: argparse.Namespace) -> None:
        self.size, self.root, self.options = size, root, options
        self.flow, self.settings = declared(size, options, size.gallery < 1_000_000)
        self.steps = {step.name: step for step in closure(self.flow.targets)}

    def of(self, name: str) -> Dataset:
        """Return the dataset of a step."""
        return self.steps[name].dataset(self.root)

    def take(self, name: str, *shards: int, key: str = "", **changed: Any) -> Took:
        """Measure tasks of a step, unless a measurement is kept."""
        limit = self.options.memory_limit
        again = AGAIN_IF_SMALL_SECONDS if self.options.small else AGAIN_SECONDS
        part = self.steps[name], self.root, shards or (0,), limit
        measure = partial(apart, *part, again_seconds=again, **changed)
        return self.kept(key or name, measure)

    # Local features --------------------------------------------------------------------------------

    def photos(self, world: Path, count: int) -> Iterator[Took]:
        """Ingest a shard of true photos and extract their features."""
        listed = Both(*(repeated_photos(role, world / role, count) for role in ("gallery", "queries")))
        changes = {"ingest": {"photos_per_shard": count}, "local": {"max_features": self.size.features}}
        flow = build(Inputs(photos=listed), layer(PRESETS[self.options.preset], changes))
        steps = {step.name: step for step in closure(flow.targets)}
        self.true = {name: steps[name].dataset(self.root) for name in ("ingest", "extract_local")}
        for name in self.true:
            whole, self.steps[name] = self.steps[name], steps[name]
            yield self.take(name)
            self.steps[name] = whole

    def local_inputs(self) -> None:
        """Write features and sizes of photos."""
        size, features = self.size, self.true["extract_local"]
        gallery, queries = self.steps["extract_local"], self.steps["extract_local_queries"]
        shards = min(size.indexed_shards, gallery.shards)
        known = min(size.known_shards, queries.shards)
        self.features = write_features(gallery, self.root, features, shards, size.photos_per_shard)
        self.asked = write_features(queries, self.root, features, known, size.photos_per_shard)
        side = self.options.long_side_px
        self.sizes = write_sizes(self.steps["ingest"], self.root, shards, size.photos_per_shard, side)
        write_sizes(self.steps["ingest_queries"], self.root, queries.shards, size.photos_per_shard, side)
        self.everything = linked(self.features, size.links)

    def local_index(self) -> Iterator[Took]:
        """Train the quantiser, index a group of shards."""
        yield self.take("train_quantiser", local=self.everything)
        yield self.take("index", units=float(self.feature_rows), local=self.features)

    @property
    def feature_rows(self) -> int:
        """Features of the shards that are there."""
        return sum(self.features.facts(i)["rows"] for i in range(self.features.shards))

    @cached_property
    def indexes(self) -> Dataset:
        """The sub-index as often as the gallery has one; a machine merges some of them, once."""
        one, merged = replace(self.of("index"), shards=1), self.steps["search"].placement["merged"]
        if not merged:  # they are opened as they are
            return linked(one, self.size.links)
        merged = min(merged, self.size.links)
        some = Copies(one.url, one.step, f"{one.fingerprint}x{merged}", merged, of=one)
        return linked(some, -(-self.size.links // merged))

    def local_search(self) -> Iterator[Took]:
        """Search all sub-indexes with some queries, and one of them with a whole shard of queries."""
        step, each = self.of("search"), []
        for count in (FEW, self.size.searched):
            images = _part(self.of("ingest_queries"), self.root, count)
            local = _part(self.asked, self.root, count)
            output = replace(step, url=f"{self.root}/searched-{count}")
            changed = {"images": images, "local": local, "index": self.indexes, "output": output}
            units = float(local.facts(0)["rows"])
            each.append(self.take("search", key=f"search-{count}", units=units, **changed))
            yield replace(each[-1], step=f"search: {count} queries")
        yield at_units(*each, float(self.asked.facts(0)["rows"]))
        # Of a whole shard of queries the memory counts, which does not depend on how many indexes there are.
        one = replace(self.of("index"), shards=1)
        elsewhere = replace(step, url=f"{self.root}/searched-one")
        found = self.take("search", key="search-shard", index=one, output=elsewhere)
        yield replace(found, step=ONE_INDEX)

    @cached_property
    def candidates(self) -> NDArray[np.int32]:
        """The candidates of all queries, written."""
        size = self.size
        return write_candidates(
            self.steps["search"],
            self.root,
            size.gallery,
            size.queries,
            self.settings.search.candidates,
            range(size.photos_per_shard * min(2, self.steps["verify"].shards - 1)),
            min(self.asked.shards * size.photos_per_shard, size.queries),
        )

    def verification(self) -> Iterator[Took]:
        """Verify the pairs of gallery shards, and re-rank queries by all pairs."""
        shards = tuple(range(min(2, self.steps["verify"].shards - 1)))
        assert len(self.candidates)
        yield self.take("verify", *shards, local_queries=self.asked)
        pairs = replace(self.of("verify"), url=f"{self.root}/all-pairs")
        yield self.take("rerank", verified=self.all_pairs(pairs))

    def all_pairs(self, pairs: Dataset) -> Dataset:
        """Return the pairs of all candidates, written."""
        return write_pairs(pairs, self.candidates, self.size.photos_per_shard)

    def checks(self) -> Iterator[Took]:
        """Look through all photos for those that cannot be used."""
        yield self.take("check_photos", gallery=linked(self.sizes, self.size.links))

    # Global descriptors ----------------------------------------------------------------------------

    def aggregation(self) -> Iterator[Took]:
        """Describe a shard of photos by a network and whiten it, or by their local features and words."""
        true = replace(self.of("extract_global"), url=f"{self.root}/true")
        key = f"extract_global-{self.options.preset}"
        if "learn_words" in self.steps:
            yield self.take("learn_words", local=self.everything)
            yield self.take("extract_global", key=key, output=true)
            return
        yield self.take("network", images=self.true["ingest"])
        own = replace(self.of("network"), shards=1)
        # Forty photos teach no whitening of 256 numbers: what it learns from has the shape of theirs.
        wide = column(own.read(0, ["descriptor"]), "descriptor").shape[1]
        per_shard = self.size.photos_per_shard
        raw = Made("", "raw", f"raw{wide}", self.steps["network"].shards, rows_of=noise_of(wide, per_shard))
        yield self.take("learn_whitening", raw=raw)
        yield self.take("extract_global", key=key, raw=own, output=true)

    def global_inputs(self) -> None:
        """Write descriptors of a synthetic world."""
        dimension = self.settings.describe.dimension
        self.world = world_of(self.size.gallery, self.size.queries, dimension)
        assert self.flow.described
        write_descriptors(self.flow.described, self.root, self.world)

    def global_search(self) -> Iterator[Took]:
        """Search descriptors: the graph's neighbours, augmentation, ranking, expansion."""
        if "index_global" in self.steps:
            yield self.take("index_global")
        yield self.take("neighbours")
        yield self.take("augment")
        plain = self.of("extract_global")
        # What is searched from here on stands for augmented descriptors, and is harder to search.
        if "index_augmented" in self.steps:
            yield self.take("index_augmented", gallery=plain)
        yield self.take("rank", gallery=plain)
        yield self.take("expand", gallery=plain)

    # Regions ---------------------------------------------------------------------------------------

    def regions(self, photos: int, parts: int) -> Iterator[Took]:
        """Index one part of the regions, link a shard's regions through all parts."""
        dimension, per_shard = self.settings.describe.dimension, self.size.photos_per_shard
        made = regions_of(photos, dimension, per_shard)
        gallery = Made("", "regions", f"regions{photos}", -(-photos // per_shard), rows_of=made)
        changed = {"parts": 1} if "parts" in self.steps["index_regions"].implied else {}
        units = float(photos * 21)
        yield self.take("index_regions", gallery=gallery, units=units, **changed)
        index = linked(replace(self.of("index_regions"), shards=1), parts)
        self.link = self.take("link_regions", described=gallery, gallery=gallery, index=index)
        yield self.link

    def diffusion(self) -> Iterator[Took]:
        """Keep the mutual links of a shard's regions, diffuse from a shard of queries, name the answers."""
        per_shard, k = self.size.photos_per_shard, self.settings.graph.neighbours
        order, shards = Path(self.root) / "order.npy", self.steps["extract_global"].shards
        if not order.exists():
            np.save(order, theme_order(self.world))
        ring = ring_of(order, k, per_shard)
        links = Made("", "links", f"links{self.size.gallery}", shards, rows_of=ring)
        with _own_cache(f"{self.root}-unpacked"):
            yield self.take("graph", links=links)
        edges = Made("", "edges", f"edges{self.size.gallery}", shards, rows_of=ring)
        nodes = regions_of(self.size.gallery, 0, per_shard)
        counted = Made("", "counted", f"counted{self.size.gallery}", shards, rows_of=nodes)
        plain = {"gallery": counted, "graph": edges, "augmented": self.of("extract_global")}
        with _own_cache(f"{self.root}-unpacked"):
            if self.settings.diffuse.start == "expanded":
                yield self.take("diffuse", **plain)
                return
            # The descriptors of all nodes would fill a disk. To find where ranks start is a search like that
            # for a graph's links, and is counted as one; the rest starts from the photos of step 4.
            whole = self.steps["diffuse"]
            inputs = {name: source for name, source in whole.inputs.items() if name != "nodes_index"}
            settings = replace(whole.settings, start="expanded")
            self.steps["diffuse"] = replace(whole, settings=settings, inputs=inputs)
            solved = self.take("diffuse", key="diffuse-from-photos", **plain)
            self.steps["diffuse"] = whole
        yield replace(solved, step=FROM_PHOTOS)
        found = self.link.cpu_per_unit * self.flow.described.queries.regions * solved.units
        yield replace(solved, cpu_seconds=[seconds + found for seconds in solved.cpu_seconds])

    # The end ---------------------------------------------------------------------------------------

    def closing(self) -> Iterator[Took]:
        """Name all answers, and write the submission and the report, as the last task does."""
        root = f"{self.root}-closing"
        rankings = {name: ranked.step for name, ranked in self.flow.rankings.items()}
        write_rankings(rankings, root, self.candidates)
        everywhere = tuple(range(self.steps["submit"].shards))
        yield self.kept(
            "submit", partial(apart, self.steps["submit"], root, everywhere, self.options.memory_limit)
        )
        run = RunDatasets.of(self.flow, root, self.settings, {"workflow": "retrieval"})
        photos = self.true["ingest"]
        run = replace(
            run,
            images=Both(
                linked(photos, self.steps["ingest"].shards), linked(photos, self.steps["submit"].shards)
            ),
            pairs=self.all_pairs(replace(self.of("verify"), url=f"{self.root}/all-pairs")),
            local=Both(self.everything, linked(self.asked, self.size.queries // self.size.photos_per_shard)),
        )
        for name, work in (("submission.csv", store_submission), ("report", store_report)):
            yield self.kept(name, partial(self.closed, name, partial(_close, work, run), root))

    def closed(self, name: str, work: Callable[[], None], root: str) -> Took:
        """Measure a part of the closing."""
        limit, units = self.options.memory_limit, float(self.size.queries)
        took = apart(self.steps["submit"], root, (0,), limit, units=units, work=work)
        return replace(took, step=name, stated_bytes=0.0, read_bytes=0.0, mapped_bytes=0.0)

    def kept(self, name: str, measure: Callable[[], Took]) -> Took:
        """Return a measurement that is kept, or measure and keep it."""
        path = Path(self.options.out) / "measured" / f"{name}-{self.size.gallery}.json"
        if not path.exists():
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(json.dumps(asdict(measure())))
        return Took(**json.loads(path.read_text()))


FEW = 2
"""Queries of a task that says what a search takes whatever it is asked."""
FROM_PHOTOS = "diffuse: from photos"
ONE_INDEX = "search: a whole shard, one sub-index"


def _close(work: Callable[[RunDatasets], object], run: RunDatasets) -> None:
    work(run)


def _part(dataset: Dataset, root: str, photos: int) -> Dataset:
    """Write what a dataset says of its first photos as a dataset of one shard."""
    part = Dataset(f"{root}/few{photos}-{dataset.step}", dataset.step, f"{dataset.fingerprint}few{photos}", 1)
    if not part.has(0):
        rows = dataset.read(0)
        part.write(0, rows.slice(0, int(np.searchsorted(column(rows, "photo"), photos))))
    return part


@contextmanager
def _own_cache(folder: str) -> Iterator[None]:
    """Unpack into a folder that is removed: what is unpacked here is large, and read once."""
    before = os.environ["LMR_CACHE"]
    os.environ["LMR_CACHE"] = folder
    try:
        yield
    finally:
        os.environ["LMR_CACHE"] = before
        shutil.rmtree(folder, ignore_errors=True)
