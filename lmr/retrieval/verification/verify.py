"""Spatial verification: how many features of two photos agree on one geometric transform.

Many pairs at a time, each computed as though it were alone: the same seed, the same order, the same
arithmetic, so that a result does not depend on the task or the order in which it was asked for.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray

from lmr.errors import LmrError, SettingsError
from lmr.retrieval.verification._ransac import agree, estimate
from lmr.retrieval.verification.evidence import counts_as_evidence, is_chance
from lmr.retrieval.verification.features import Features
from lmr.retrieval.verification.pairwise import Matcher

__all__ = ["DELF_RECIPE", "Features", "Model", "Recipe", "Verification", "verify_pairs"]

Model = Literal["affine", "similarity", "homography", "fundamental"]

_ROUNDS = 3  # a caption, a logo, and what is left
_SAMPLE = {"affine": 3, "similarity": 2, "homography": 4, "fundamental": 7}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How pairs are matched and verified; `DELF_RECIPE` is the one that DELF was published with.

    Attributes
    ----------
    max_distance, max_ratio, mutual
        The tests of `lmr.retrieval.verification.match.match`.
    weak_geometry
        Before RANSAC keep only matches that agree with most others on the change of scale and the rotation
        (Jégou, Douze and Schmid 2008). For features that have both.
    model
        What maps the gallery photo onto the query photo.
    max_residual_px
        An inlier's residual is below it, in pixels of the query photo: the distance from the mapped gallery
        feature, for a fundamental matrix the Sampson distance.
    min_tentative
        With fewer matches the pair has 0 inliers. So it has with no more matches than a sample of the model
        needs: affine 3, similarity 2, homography 4, fundamental 7.
    max_trials
        RANSAC's samples; for affine transforms and similarities they cost less than the matching.
    confidence
        Stop early once a sample without an outlier was drawn with this probability.
    seed
        Of each pair's own random numbers.
    """

    max_distance: Annotated[float, Gt(0), Le(1_000_000)] | None = None
    max_ratio: Annotated[float, Gt(0), Le(10)] | None = 0.9
    mutual: bool = True
    weak_geometry: bool = False
    model: Model = "affine"
    max_residual_px: Annotated[float, Gt(0), Le(65_535)] = 8.0
    min_tentative: Annotated[int, Ge(0), Le(65_535)] = 4
    max_trials: Annotated[int, Ge(1), Le(10_000_000)] = 2000
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.999
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0

    def __post_init__(self) -> None:
        checks = {
            "max_distance": (self.max_distance is None or self.max_distance > 0, "above 0, or None"),
            "max_ratio": (self.max_ratio is None or self.max_ratio > 0, "above 0, or None"),
            "model": (self.model in _SAMPLE, f"one of {', '.join(_SAMPLE)}"),
            "max_residual_px": (0 < self.max_residual_px < np.inf, "above 0"),
            "min_tentative": (self.min_tentative >= 0, "0 or more"),
            "max_trials": (self.max_trials >= 1, "1 or more"),
            "confidence": (0 < self.confidence < 1, "between 0 and 1"),
            "seed": (0 <= self.seed < 2**31, "from 0 to 2147483647"),
        }
        for name, (good, wanted) in checks.items():
            if not good:
                raise SettingsError(
                    f"{name} is out of range", got=repr(getattr(self, name)), fix=f"choose {name} {wanted}"
                )

    @property
    def needed(self) -> int:
        """The fewest matches with which a model is looked for."""
        return max(self.min_tentative, _SAMPLE[self.model] + 1)


DELF_RECIPE = Recipe(max_distance=0.8, max_ratio=None, mutual=False, max_residual_px=20.0)
"""The recipe of DELF's `match_images.py`, with more trials."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found for each of p pairs.

    Attributes
    ----------
    inliers
        (p,) int32, the matches that agree with the transform.
    tentative
        (p,) int32, the matches that passed the tests on descriptors.
    transform
        (p, 3, 3) float32, maps homogeneous (x, y, 1) of the gallery photo to the query photo, as in DELF's
        recipe; a fundamental matrix F has `q.T @ F @ g = 0`. NaN where there are no inliers.
    matches
        (total, 2) int32, the inliers as (feature of the query photo, feature of the gallery photo), counted
        within each photo and in order of the former.
    offsets
        (p + 1,) int64: pair i has rows offsets[i] to offsets[i + 1] of `matches`.
    """

    inliers: NDArray[np.int32]
    tentative: NDArray[np.int32]
    transform: NDArray[np.float32]
    matches: NDArray[np.int32]
    offsets: NDArray[np.int64]


def verify_pairs(
    query: Features, gallery: Features, pairs: NDArray[np.integer], recipe: Recipe | None = None
) -> Verification:
    """Match the photos of each pair and count the matches that agree on one transform.

    Parameters
    ----------
    query, gallery
        Features of the photos that the pairs name.
    pairs
        (p, 2) integers, rows (photo of `query`, photo of `gallery`), in any order.
    recipe
        How; None: `Recipe()`.

    Returns
    -------
    Verification
        In the order of `pairs`. Of a pair: its inliers under the returned float32 transform, to the letter;
        with frames, those of them that are evidence.

    Raises
    ------
    LmrError
        Descriptors of the two sides do not fit or are not of unit length, a pair names a photo that is not
        there, or `weak_geometry` lacks scales and orientations.

    Notes
    -----
    Residuals are measured in the query photo, where each feature has one match. The other way round many
    query features may share a gallery feature, and a transform that shrinks all to that point has them all.
    """
    recipe = recipe or Recipe()
    pairs = np.asarray(pairs)
    _check(query, gallery, pairs, recipe)
    query_offsets, gallery_offsets = query.offsets, gallery.offsets
    query_rows, query = query.usable
    gallery_rows, gallery = gallery.usable
    sizes = np.diff(query.offsets)[pairs[:, 0]], np.diff(gallery.offsets)[pairs[:, 1]]
    nearest = Matcher(
        query,
        gallery,
        sizes,
        max_distance=recipe.max_distance,
        max_ratio=recipe.max_ratio,
        mutual=recipe.mutual,
    )

    p = len(pairs)
    tentative, inliers = np.zeros(p, dtype=np.int32), np.zeros(p, dtype=np.int32)
    transform = np.full((p, 3, 3), np.nan, dtype=np.float32)
    matches = [np.empty((0, 2), dtype=np.int64)]
    for i, (q, g) in enumerate(pairs.tolist()):
        q_span = slice(*query.offsets[q : q + 2].tolist())
        g_span = slice(*gallery.offsets[g : g + 2].tolist())
        found, similarity = nearest((q_span.start, q_span.stop), (g_span.start, g_span.stop))
        tentative[i] = len(found)
        if recipe.weak_geometry:
            kept = _agreeing(query, gallery, found + np.array([q_span.start, g_span.start]))
            found, similarity = found[kept], similarity[kept]
        if len(found) < recipe.needed:
            continue
        frames = None if query.frame is None or gallery.frame is None else (query.frame[q], gallery.frame[g])
        places = query.xy[q_span], gallery.xy[g_span]
        model, agreed = _agree_on_evidence(places, frames, found, similarity, recipe)
        if len(agreed) == 0:
            continue
        for side, rows, span, before in (
            (0, query_rows, q_span, query_offsets[q]),
            (1, gallery_rows, g_span, gallery_offsets[g]),
        ):
            agreed[:, side] = rows[span.start + agreed[:, side]] - before
        matches.append(agreed)
        inliers[i], transform[i] = len(agreed), model
    return Verification(
        inliers=inliers,
        tentative=tentative,
        transform=transform,
        matches=np.concatenate(matches).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(inliers)]).astype(np.int64),
    )


def _check(query: Features, gallery: Features, pairs: NDArray[np.integer], recipe: Recipe) -> None:
    if query.descriptors.shape[1] != gallery.descriptors.shape[1]:
        raise LmrError(
            "descriptors of query and gallery do not fit",
            got=f"{query.descriptors.shape[1]} and {gallery.descriptors.shape[1]} dimensions",
            fix="extract both with the same settings",
        )
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise LmrError(
            "pairs are not rows of (query photo, gallery photo)",
            got=f"{pairs.dtype} of shape {pairs.shape}",
            fix="give integers of shape (p, 2)",
        )
    photos = len(query.offsets) - 1, len(gallery.offsets) - 1
    if len(pairs) and (pairs.min() < 0 or (pairs.max(axis=0) >= photos).any()):
        raise LmrError(
            "a pair names a photo that is not there",
            got=f"pairs {pairs.min(axis=0)} to {pairs.max(axis=0)} among {photos[0]} and {photos[1]} photos",
            fix="number the photos of each side from 0, in the order of its offsets",
        )
    if recipe.weak_geometry:
        for name, side in (("query", query), ("gallery", gallery)):
            if side.scale is None or side.orientation is None or not (side.scale > 0).all():
                raise LmrError(
                    f"weak_geometry needs scales above 0 and orientations of the {name} features",
                    got="none" if side.scale is None or side.orientation is None else "scales of 0 or NaN",
                    fix="set weak_geometry to false, or take an extractor that gives them",
                )


def _agreeing(query: Features, gallery: Features, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which matches share the commonest change of scale (1.5 octaves wide) and rotation (68° wide)."""
    if (
        query.scale is None
        or gallery.scale is None
        or query.orientation is None
        or gallery.orientation is None
    ):
        return np.ones(len(rows), dtype=np.bool_)  # never, as _check made sure
    octaves = np.log2(query.scale[rows[:, 0]] / gallery.scale[rows[:, 1]])
    turn = query.orientation[rows[:, 0]] - gallery.orientation[rows[:, 1]]
    # Half octaves from -4 to 4, sixteenths of a turn.
    zoom = np.clip(np.rint(2 * octaves), -8, 8).astype(np.int64) + 8
    angle = np.rint(turn * (16 / (2 * np.pi))).astype(np.int64) % 16
    votes = np.bincount(zoom * 16 + angle, minlength=17 * 16).reshape(17, 16)
    wide = np.pad(votes, ((1, 1), (0, 0)))
    wide = wide[:-2] + wide[1:-1] + wide[2:]
    wide = wide + np.roll(wide, 1, axis=1) + np.roll(wide, -1, axis=1)
    best_zoom, best_angle = np.divmod(wide.argmax(), 16)
    kept: NDArray[np.bool_] = (np.abs(zoom - best_zoom) <= 1) & ((angle - best_angle + 1) % 16 <= 2)
    return kept


def _agree_on_evidence(
    places: tuple[NDArray[np.float32], NDArray[np.float32]],
    frames: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    found: NDArray[np.int32],
    similarity: NDArray[np.float64],
    recipe: Recipe,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the model that the matches agree on, (3, 3), and those of them that do and are evidence, (n, 2).

    Where most of what agrees is no evidence, such as a caption, the others are asked again without it.
    """
    model, nothing = np.full((3, 3), np.nan, dtype=np.float32), np.empty((0, 2), np.int64)
    for _ in range(1 if frames is None else _ROUNDS):
        if len(found) < recipe.needed:
            break
        model, good = _agree(*places, found, similarity, recipe)
        agreed = found[good].astype(np.int64)
        if frames is None or len(good) == 0:
            return model, agreed
        directed = None if recipe.model == "fundamental" else model
        kept = counts_as_evidence(places[0][agreed[:, 0]], places[1][agreed[:, 1]], *frames, directed)
        if 2 * kept.sum() > len(kept):
            return model, agreed[kept]
        others = np.ones(len(found), np.bool_)
        others[good[~kept]] = False
        found, similarity = found[others], similarity[others]
    return model, nothing


def _agree(
    query_xy: NDArray[np.float32],
    gallery_xy: NDArray[np.float32],
    found: NDArray[np.int32],
    similarity: NDArray[np.float64],
    recipe: Recipe,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the model that the matches agree on, (3, 3), and the numbers of those that do."""
    # The nearest first, ties in the order of the query's features.
    trust = np.argsort(-similarity, kind="stable")
    if recipe.model in ("affine", "similarity"):
        model = np.zeros((3, 3), dtype=np.float32)
        model[2, 2] = 1
        rows, good = agree(query_xy, gallery_xy, found, trust, *_ransac_settings(recipe))
        model[:2] = rows.reshape(2, 3)
        return model, good
    on_query, on_gallery = query_xy[found[:, 0]], gallery_xy[found[:, 1]]
    model = _estimate(on_gallery[trust], on_query[trust], recipe)
    good = np.flatnonzero(_residuals_px(model, on_gallery, on_query, recipe.model) < recipe.max_residual_px)
    if recipe.model == "fundamental" and len(good):
        # A line through the photo passes near many places: what agrees must be more than chance gives.
        width, height = np.maximum(np.ptp(on_query, axis=0).astype(float), 1.0)
        share = min(1.0, 2 * recipe.max_residual_px * np.hypot(width, height) / (width * height))
        if is_chance(_places(on_gallery[good], on_query[good]), len(found), _SAMPLE["fundamental"], share):
            good = good[:0]
    return model, good


def _ransac_settings(recipe: Recipe) -> tuple[int, np.float32, int, float, int]:
    """Return what `lmr.retrieval.verification._ransac` asks for besides the matches."""
    residual = np.float32(recipe.max_residual_px)
    return _SAMPLE[recipe.model], residual, recipe.max_trials, recipe.confidence, recipe.seed


def _estimate(
    source: NDArray[np.float32], target: NDArray[np.float32], recipe: Recipe
) -> NDArray[np.float32]:
    """Find the model that maps `source` to `target`, the most trusted matches first: (3, 3), NaN for none."""
    model = np.full((3, 3), np.nan)
    if recipe.model in ("affine", "similarity"):
        rows, count = estimate(
            np.ascontiguousarray(source.T, dtype=np.float32),
            np.ascontiguousarray(target.T, dtype=np.float32),
            *_ransac_settings(recipe),
        )
        if count:
            model[:2], model[2] = rows.reshape(2, 3), (0, 0, 1)
        return model.astype(np.float32)
    # Of OpenCV's flavours and PoseLib, the best separation for the time: `benchmarks/verify.py --estimators`.
    usac = cv2.UsacParams()
    usac.sampler, usac.score = cv2.SAMPLING_PROSAC, cv2.SCORE_METHOD_MSAC
    usac.loMethod, usac.loIterations, usac.loSampleSize = cv2.LOCAL_OPTIM_INNER_LO, 10, 14
    usac.threshold, usac.maxIterations = recipe.max_residual_px, recipe.max_trials
    usac.confidence, usac.randomGeneratorState = recipe.confidence, recipe.seed
    find = cv2.findHomography if recipe.model == "homography" else cv2.findFundamentalMat
    found, _ = find(source, target, usac)
    if found is not None and found.shape == (3, 3) and np.isfinite(found).all() and found.any():
        model = found / np.linalg.norm(found)
    return model.astype(np.float32)


def _places(*sides: NDArray[np.float32]) -> int:
    """Count the different places, in the photo that has fewer."""
    return min(len(np.unique(np.ascontiguousarray(xy, dtype=np.float32).view(np.complex64))) for xy in sides)


def _residuals_px(
    model: NDArray[np.float32], source: NDArray[np.float32], target: NDArray[np.float32], kind: Model
) -> NDArray[np.float64]:
    """Return the residual of each match in `target`, in float64; NaN, and so no inlier, without a model."""
    m = model.astype(np.float64)
    x, u = source.T.astype(np.float64), target.T.astype(np.float64)
    mapped = m[:, :1] * x[0] + m[:, 1:2] * x[1] + m[:, 2:]
    residual: NDArray[np.float64]
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "fundamental":
            back = m[:1].T * u[0] + m[1:2].T * u[1] + m[2:].T
            residual = np.abs(mapped[0] * u[0] + mapped[1] * u[1] + mapped[2])
            residual /= np.sqrt(mapped[0] ** 2 + mapped[1] ** 2 + back[0] ** 2 + back[1] ** 2)
        else:
            residual = np.hypot(mapped[0] / mapped[2] - u[0], mapped[1] / mapped[2] - u[1])
    return residual
