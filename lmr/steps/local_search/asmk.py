"""Step 1 by ASMK: a codebook trained on a sample, an inverted file per group of gallery shards, its search.

The other way of step 1, `lmr.steps.local_search.votes` by votes, looks up each feature's neighbours; this
one compares photos by what their features are per visual word (`lmr.retrieval.local_search.asmk`), in less
memory and time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.local_search.asmk import AsmkPart, aggregate, random_rotation
from lmr.retrieval.local_search.asmk_index import (
    AsmkIndex,
    asmk_idf,
    asmk_norms,
    entries_per_word,
    join_asmk,
    search_asmk,
)
from lmr.retrieval.local_search.codebook import default_words, open_codebook, train_codebook
from lmr.runtime.settings import Part, Settings
from lmr.runtime.steps import Cost, Each, Source, Step, Whole, per_part
from lmr.runtime.threads import threads
from lmr.steps.features.local import Extracted
from lmr.steps.local_search.index import (
    IndexSettings,
    LocalIndex,
    at_least,
    descriptors_of,
    feature_count,
    sample_descriptors,
    training_bytes,
    with_few,
)
from lmr.steps.photos.generations import learned_from
from lmr.steps.ranking import Ranked, Ranking, ranking_bytes
from lmr.steps.sizes import FEATURES_AT_ONCE, blocks, rows_per_shard
from lmr.storage.arrow import array_table, column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import named_arrays, spilled_rows, unpack, write_arrays

__all__ = [
    "AsmkSettings",
    "index_asmk",
    "index_asmk_shard",
    "search_by_asmk",
    "search_asmk_shard",
    "train_codebook_shard",
]

CHANCE = 0.01  # similarity of two photos by chance, of at most 1; assumed, not measured
ENTRY_BYTES = 24.0  # of a photo's feature in an inverted file: its code, its photo, its word's share
SAMPLE_PER_WORD = 32  # of 65,536 words: two million descriptors, a gigabyte as float32


@dataclass(frozen=True, kw_only=True)
class AsmkSettings(Settings):
    """Settings of step 1 when `search.method` is "asmk"; the defaults are those published with HOW."""

    words: Annotated[int, Ge(0), Le(16_777_216)] = 0
    """Visual words; 0: 65,536, or the power of two that leaves 39 gallery features for each."""
    rotate: bool = True
    """Whether residuals are rotated at random before their signs are taken; for descriptors that are not
    whitened, such as RootSIFT."""
    words_per_feature: Annotated[int, Ge(1), Le(1_000)] = 5
    """Nearest words that a query's feature enters; the gallery's enter one."""
    alpha: Annotated[float, Gt(0), Le(100)] = 3.0
    """Selectivity: the larger, the less do codes count that differ."""
    threshold: Annotated[float, Ge(0), Le(1)] = 0.0
    """Similarity of two codes, 0 to 1, below which it does not count."""
    idf: bool = False
    """Whether words that many photos have count less."""


def index_asmk(local: Extracted, settings: AsmkSettings, index: IndexSettings) -> LocalIndex:
    """Declare the steps that index the gallery's local features for ASMK.

    The dataset `codebook` holds the words and the rotation; each shard of `asmk_index` is an inverted file
    over a group of gallery shards. Both are named arrays, see `lmr.storage.arrow.array_table`.
    """
    learned = learned_from(local.source)
    words = settings.words or default_words(max(learned.rows, 1))
    sample = min(SAMPLE_PER_WORD * words, learned.rows)
    # What the codebook and the inverted files depend on, and no more.
    own = settings.only("words", "rotate", kind="CodebookSettings").also(
        gallery_shards_per_index=index.gallery_shards_per_index, seed=index.seed
    )
    codebook = Step(
        name="train_codebook",
        folder="codebook",
        make=train_codebook_shard,
        settings=own,
        inputs={"local": Whole(learned)},
        implied={"dimension": local.dimension},
        shards=1,
        cost=Cost(
            rows=2,
            bytes_per_row=4.0 * words * local.dimension,
            task_bytes=training_bytes(local, sample, words),
            work=sample,
            unit="feature",
            mapped_bytes=1.0 * sample * local.dimension * local.itemsize,
        ),
    )

    def indexed(part: Step) -> Step:
        group = min(index.gallery_shards_per_index * rows_per_shard(part), part.rows)
        return Step(
            name="index_asmk",
            folder="asmk_index",
            make=index_asmk_shard,
            settings=own,
            inputs={"local": Whole(part, shared_out=True), "codebook": Whole(codebook)},
            shards=-(-part.shards // index.gallery_shards_per_index),
            cost=Cost(
                rows=part.rows,
                bytes_per_row=ENTRY_BYTES,
                # The words three times. First a shard's descriptors as fetched and as stored, a block's as
                # floats, rotated, and less their words; entries lie in a file. Then these sorted, and the
                # shard as it grows.
                task_bytes=12.0 * words * local.dimension
                + max(
                    rows_per_shard(part) * 2.0 * local.dimension * local.itemsize
                    + 20.0 * min(rows_per_shard(part), FEATURES_AT_ONCE + local.per_photo) * local.dimension,
                    3.0 * group * ENTRY_BYTES,
                ),
                work=part.rows,
                unit="feature",
                mapped_bytes=group * (ENTRY_BYTES + 4.0),
            ),
        )

    return LocalIndex(per_part(indexed, local.source), codebook)


def train_codebook_shard(shard: int, settings: Part, *, local: Dataset, dimension: int) -> pa.Table:
    """Train the visual words on a sample of the gallery's descriptors."""
    total = feature_count(local)
    words = settings.words or default_words(max(total, 1))
    drawn = sample_descriptors(local, SAMPLE_PER_WORD * words, total, settings.seed)
    sample = at_least(drawn, words, dimension, settings.seed)
    trained: dict[str, Any] = {"codebook": train_codebook(sample, words, seed=settings.seed)}
    if settings.rotate:
        trained["rotation"] = random_rotation(sample.shape[1], seed=settings.seed)
    return with_few(array_table(trained), total)


def index_asmk_shard(shard: int, settings: Part, *, local: Dataset, codebook: Dataset) -> pa.Table:
    """Aggregate the photos of one group of gallery shards and invert them."""
    trained = named_arrays(codebook)
    n_words = open_codebook(trained["codebook"].tobytes()).ntotal
    blocks = descriptors_of(local, shard, settings.gallery_shards_per_index)
    # By way of a file: a sub-index of sixteen million entries would be held three times while it is sorted.
    entries = spilled_rows(_entries(_aggregate(*block, trained)) for block in blocks)
    runs = [entries[lo : lo + FEATURES_AT_ONCE] for lo in range(0, max(len(entries), 1), FEATURES_AT_ONCE)]
    index = join_asmk([AsmkPart(run["word"], run["photo"], run["code"]) for run in runs], n_words=n_words)
    return array_table({name: getattr(index, name) for name in _STORED})


def _entries(part: AsmkPart) -> NDArray[Any]:
    """Return a part as rows of word, photo and code, for one file."""
    width = part.codes.shape[1:]
    rows = np.empty(
        len(part.words), [("word", np.int32), ("photo", np.int64), ("code", part.codes.dtype, width)]
    )
    rows["word"], rows["photo"], rows["code"] = part.words, part.photos, part.codes
    return rows


_STORED = tuple(f.name for f in fields(AsmkIndex) if f.name != "norms")


def _aggregate(
    descriptors: NDArray[np.float32],
    photos: NDArray[np.int64],
    trained: Mapping[str, NDArray[Any]],
    words_per_feature: int = 1,
) -> AsmkPart:
    return aggregate(
        descriptors,
        photos,
        open_codebook(trained["codebook"].tobytes()),
        words_per_descriptor=words_per_feature,
        rotation=trained.get("rotation"),
        threads=threads(),
    )


def search_by_asmk(
    images: Source, local: Extracted, index: LocalIndex, settings: AsmkSettings, candidates: int
) -> Ranked:
    """Declare the step that searches the gallery by ASMK; a ranking by its similarity, at most 1."""
    per_query = local.per_photo * settings.words_per_feature
    queries, gallery = rows_per_shard(images), index.parts.rows / max(local.per_photo, 1)
    held = min(queries * local.per_photo, FEATURES_AT_ONCE + local.per_photo)
    step = Step(
        name="search",
        folder="candidates",
        make=search_asmk_shard,
        revision=2,  # says what chance gives
        # What a search depends on besides the index.
        settings=settings.only(
            "words_per_feature", "alpha", "threshold", "idf", kind="AsmkSearchSettings"
        ).also(candidates=candidates),
        inputs={
            "images": Each(images),
            "local": Each(local.source),
            "index": Whole(index.parts),
            "codebook": Whole(index.trained),
        },
        shards=images.shards,
        role="queries",
        cost=Cost(
            rows=images.rows,
            bytes_per_row=ranking_bytes(candidates) + 4.0,
            # Descriptors as fetched and as stored; those of a block as floats and less each of their words; a
            # score per gallery photo.
            task_bytes=queries * local.per_photo * local.dimension * local.itemsize * 2.0
            + held * local.dimension * 8.0
            + held * settings.words_per_feature * (12.0 * local.dimension + 40.0)
            + 24.0 * gallery
            + 4.0 * queries * ranking_bytes(candidates),
            work=images.rows * per_query,
            unit="feature",
            mapped_bytes=index.parts.rows * ENTRY_BYTES,
        ),
    )
    return Ranked(step, candidates)


def search_asmk_shard(
    shard: int,
    settings: Part,
    *,
    images: Dataset,
    local: Dataset,
    index: Dataset,
    codebook: Dataset,
) -> pa.Table:
    """Search with the queries of one shard."""
    queries = column(images.read(shard, ["photo"]), "photo")
    features = local.read(shard, ["photo", "descriptor"])
    numbers = (column(features, "photo") - queries[0]).astype(np.int64)
    trained = named_arrays(codebook)
    stored = column(features, "descriptor")
    indexes, idf = _open(index, settings.idf)
    bounds = np.searchsorted(numbers, np.arange(len(queries) + 1))
    ranked, scores = [], []
    for lo, hi in blocks(np.diff(bounds).tolist(), FEATURES_AT_ONCE):
        part = slice(bounds[lo], bounds[hi])
        found = search_asmk(
            indexes,
            _aggregate(to_float(stored[part]), numbers[part] - lo, trained, settings.words_per_feature),
            n_queries=hi - lo,
            candidates=settings.candidates,
            alpha=settings.alpha,
            threshold=settings.threshold,
            idf=idf,
        )
        ranked.append(found[0])
        scores.append(found[1])
    chance = np.full(len(queries), CHANCE, np.float32)
    return Ranking(queries, np.concatenate(ranked), np.concatenate(scores)).table(background=chance)


def _open(index: Dataset, with_idf: bool) -> tuple[list[AsmkIndex], NDArray[np.float32] | None]:
    """Map all sub-indexes from this machine's disk, and the weights of words over the whole gallery."""
    places = [index.locate(i) for i in range(index.shards)]
    plain = [unpack(part, f"{i:05d}", partial(_write_index, part, i), _map_index) for part, i in places]
    idf = None
    if with_idf:
        entries = np.sum([entries_per_word(part) for part in plain], axis=0)
        idf = asmk_idf(entries, sum(len(part.photo_rows) for part in plain))
    # Norms take a pass over all entries: once per machine, not per task. With idf they depend on the gallery.
    key = "norms-idf" if with_idf else "norms"
    if with_idf:
        places = [(index, i) for i in range(index.shards)]
    indexes = [
        replace(part, norms=unpack(of, f"{i:05d}-{key}", partial(_write_norms, part, idf), _map_norms))
        for part, (of, i) in zip(plain, places, strict=True)
    ]
    return indexes, idf


def _write_index(index: Dataset, shard: int, folder: Path) -> None:
    write_arrays(index.read_groups(shard), folder)


def _map_index(folder: Path) -> AsmkIndex:
    return AsmkIndex(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _STORED})


def _write_norms(part: AsmkIndex, idf: NDArray[np.float32] | None, folder: Path) -> None:
    np.save(folder / "norms.npy", asmk_norms(part, idf))


def _map_norms(folder: Path) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = np.load(folder / "norms.npy")
    return norms
