"""The pictures of the docs, from rendered photos and lmr's own functions: `python docs/pictures.py`.

Photos become JPEGs of at most 60 kB; points in a plane become SVGs. The numbers behind every line and point
are computed here, by the functions that a run calls.
"""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lmr.features.local.rootsift import RootSift
from lmr.retrieval.diffusion.affinity import affinity, transition
from lmr.retrieval.diffusion.online import diffuse
from lmr.retrieval.expansion.expand import expand_queries
from lmr.retrieval.global_search.augmentation import augment_descriptors
from lmr.retrieval.global_search.exact import top_k
from lmr.retrieval.recognition import Evidence, name_landmarks
from lmr.retrieval.verification.verify import Features, Recipe, Verification, verify_pairs
from lmr.testing.world import World, photos, render

FOLDER = Path(__file__).parent / "pictures"
HEIGHT_PX = 270
GAP_PX = 12
ORANGE, BLUE, GREEN, GREY = "#d4622a", "#2f6fbf", "#2f9e68", "#9aa3ad"
Points = NDArray[np.float32]


def same_landmark() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render a query and the gallery photo of its landmark that has most inliers with it."""
    world = World(landmarks=2, queries=2, distractors=0, queries_without_landmark=0, long_side_px=512)
    specs = photos(world)
    query = next(spec for spec in specs if spec.set == "query")
    same = [spec for spec in specs if spec.set == "gallery" and spec.landmark == query.landmark]
    first, shown = render(world, query), [render(world, spec) for spec in same]
    counts = [int(matched(first, photo)[2].inliers[0]) for photo in shown]
    return first, shown[int(np.argmax(counts))]


def matched(
    one: NDArray[np.uint8], other: NDArray[np.uint8], recipe: Recipe | None = None
) -> tuple[Points, Points, Verification]:
    """Match two photos as `verify` does; return the two ends of every match that it keeps, and the rest."""
    sides = []
    for features in RootSift(max_features=600)([one, other]):
        rows = features.descriptor.astype(np.float32)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        sides.append(Features(xy=features.xy, descriptors=rows, offsets=np.array([0, len(rows)])))
    found = verify_pairs(sides[0], sides[1], np.array([[0, 0]]), recipe or Recipe())
    return sides[0].xy[found.matches[:, 0]], sides[1].xy[found.matches[:, 1]], found


def draw_lines(
    one: NDArray[np.uint8], other: NDArray[np.uint8], lines: Iterable[tuple[Points, Points, str]], path: Path
) -> None:
    """Draw two photos side by side, and lines from places of the one to places of the other."""
    zooms = [HEIGHT_PX / photo.shape[0] for photo in (one, other)]
    small = [
        cv2.resize(photo, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        for photo, zoom in zip((one, other), zooms, strict=True)
    ]
    left = small[0].shape[1] + GAP_PX
    canvas = np.full((HEIGHT_PX, left + small[1].shape[1], 3), 255, np.uint8)
    canvas[:, : left - GAP_PX], canvas[:, left:] = small[0][:HEIGHT_PX], small[1][:HEIGHT_PX]
    for starts, ends, color in lines:
        rgb = tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
        for (x, y), (u, v) in zip(starts * zooms[0], ends * zooms[1], strict=True):
            cv2.line(canvas, (round(x), round(y)), (round(u) + left, round(v)), rgb, 1, cv2.LINE_AA)
    path.write_bytes(cv2.imencode(".jpg", canvas[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 72])[1].tobytes())


def on_sphere(points: Points) -> Points:
    """Lift points of a plane to unit vectors, as descriptors are."""
    lifted = np.column_stack([points, np.full(len(points), 3.0, np.float32)]).astype(np.float32)
    unit: Points = lifted / np.linalg.norm(lifted, axis=1, keepdims=True)
    return unit


def in_plane(rows: Points) -> Points:
    """Undo `on_sphere`."""
    flat: Points = rows[:, :2] / rows[:, 2:] * 3.0
    return flat


class Plane:
    """An SVG of points in a plane, each coordinate from -1 to 1."""

    def __init__(self, title: str) -> None:
        self.parts = [f"<title>{title}</title>"]

    def at(self, point: Points) -> tuple[float, float]:
        """Return a point's place in the picture."""
        return 180 + 165 * float(point[0]), 130 - 115 * float(point[1])

    def dots(
        self, points: Points, color: str, radius: float = 5, opacity: Iterable[float] | None = None
    ) -> None:
        """Draw points."""
        shades = list(opacity) if opacity is not None else [1.0] * len(points)
        for point, shade in zip(points, shades, strict=True):
            x, y = self.at(point)
            self.parts.append(
                f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{radius:g}" fill="{color}"'
                f' fill-opacity="{shade:.2f}"/>'
            )

    def lines(self, starts: Points, ends: Points, color: str, width: float = 1) -> None:
        """Draw lines."""
        for start, end in zip(starts, ends, strict=True):
            (x, y), (u, v) = self.at(start), self.at(end)
            self.parts.append(
                f'<path d="M{x:.0f} {y:.0f}L{u:.0f} {v:.0f}" stroke="{color}" stroke-width="{width:g}"/>'
            )

    def text(self, x: int, y: int, words: str, color: str) -> None:
        """Write a label."""
        self.parts.append(f'<text x="{x}" y="{y}" fill="{color}" font-size="12">{words}</text>')

    def save(self, path: Path) -> None:
        """Write the file."""
        size = 'viewBox="0 0 360 260" width="480"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
        path.write_text(
            "\n".join([head, '<rect width="360" height="260" fill="#fff"/>', *self.parts, "</svg>\n"])
        )


def clusters(seed: int) -> Points:
    """Return three groups of points: photos of three landmarks as descriptors see them."""
    random = np.random.default_rng(seed)
    centres = np.array([[-0.55, 0.35], [0.5, 0.4], [0.05, -0.5]])
    return np.concatenate([c + 0.17 * random.standard_normal((9, 2)) for c in centres]).astype(np.float32)


def averaged(path: Path) -> None:
    """Draw where gallery photos move when they are averaged with their nearest (stage 3)."""
    points = clusters(3)
    rows = on_sphere(points)
    sims, ids = top_k(rows, [(0, rows)], 3, exclude_self_start=0)
    moved = in_plane(augment_descriptors(rows, ids, sims, rows, alpha=3.0))
    plane = Plane("Every gallery photo moves to the mean of itself and its nearest neighbours")
    plane.lines(points, moved, GREEN, 1.5)
    plane.dots(points, GREY, 4)
    plane.dots(moved, GREEN, 5)
    plane.text(12, 248, "grey: before · green: after averaging with three neighbours", "#445")
    plane.save(path)


def moved_query(path: Path) -> None:
    """Draw where a query moves when it is averaged with what it found (stage 4)."""
    points, query = clusters(3), np.array([[-0.12, 0.08]], np.float32)
    rows, before = on_sphere(points), on_sphere(query)
    sims, ids = top_k(before, [(0, rows)], 4)
    after = in_plane(expand_queries(before, ids, sims**3, rows))
    plane = Plane("The query moves to the mean of itself and what it found")
    found = points[ids[0]]
    plane.lines(np.repeat(query, len(found), axis=0), found, "#cfd6dd")
    plane.dots(points, GREY, 4)
    plane.dots(found, GREEN, 5)
    plane.lines(query, after, ORANGE, 2.5)
    plane.dots(query, BLUE, 7)
    plane.dots(after, ORANGE, 7)
    plane.text(12, 248, "blue: query · green: what it found · orange: where it searches again", "#445")
    plane.save(path)


def spread(path: Path) -> None:
    """Draw how far scores reach from a query's first photo along the graph (stage 5)."""
    turn = np.linspace(0.15, 0.95, 22) * np.pi
    random = np.random.default_rng(0)
    arc = np.column_stack([-0.85 * np.cos(turn), -0.55 + 1.15 * np.sin(turn)])
    other = np.array([-0.1, -0.6]) + 0.12 * random.standard_normal((10, 2))
    points = np.concatenate([arc + 0.02 * random.standard_normal(arc.shape), other]).astype(np.float32)
    rows = on_sphere(points)
    sims, ids = top_k(rows, [(0, rows)], 4, exclude_self_start=0)
    graph = affinity(ids, sims, gamma=3.0)
    scores = diffuse(transition(graph), np.array([[0]], np.int32), np.ones((1, 1)), alpha=0.99)[0]
    edges = graph.tocoo()
    plane = Plane("Score flows along edges between mutual neighbours, and stays within the landmark")
    plane.lines(points[edges.row], points[edges.col], "#d8dde2")
    shade = np.where(scores > 0, 0.15 + 0.85 * (scores / scores.max()) ** 0.35, 0.0)
    plane.dots(points, GREY, 6, [0.45] * len(points))
    plane.dots(points, ORANGE, 6, [float(one) for one in shade])
    plane.dots(points[:1], BLUE, 7)
    plane.text(12, 248, "blue: the first match · orange: score that reached a photo", "#445")
    plane.save(path)


def named(path: Path) -> None:
    """Draw how the photos that a query found speak for their landmarks (recognition)."""
    points, query = clusters(3), np.array([[-0.1, 0.22]], np.float32)
    landmarks = np.repeat([0, 1, 2], len(points) // 3)
    sims, ids = top_k(on_sphere(query), [(0, on_sphere(points))], 8)
    strength = sims[0].astype(np.float64) ** 3
    pairs = Evidence(np.zeros(len(strength), np.int64), ids[0].astype(np.int64), strength)
    landmark = int(name_landmarks([pairs], landmarks, 1).landmarks[0])
    colors = [GREEN, ORANGE, GREY]
    plane = Plane("Every photo that was found speaks for its landmark; the largest sum names the query")
    for photo in ids[0]:
        plane.lines(query, points[photo][None], colors[landmarks[photo]], 2)
    for one, color in enumerate(colors):
        plane.dots(points[landmarks == one], color, 5)
    plane.dots(query, BLUE, 7)
    for one in np.unique(landmarks[ids[0]]):
        total = strength[landmarks[ids[0]] == one].sum()
        x, y = plane.at(points[landmarks == one].mean(axis=0))
        x, y = (x + 50, y + 10) if y > 130 else (x - 8, y - 62)  # beside the lower group, above the others
        told = f"sum {total:.1f}" + (", named" if one == landmark else "")
        plane.text(int(x), int(y), told, colors[one])
    plane.text(12, 248, "blue: query · lines: photos that it found · colours: landmarks", "#445")
    plane.save(path)


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    query, photo = same_landmark()
    # With a tolerance beyond the photo every match agrees: these are the matches by descriptors alone.
    nearest = Recipe(max_residual_px=1e6, max_ratio=None, mutual=False)
    starts, ends, _ = matched(query, photo, nearest)
    draw_lines(query, photo, [(starts[::6], ends[::6], ORANGE)], FOLDER / "votes.jpg")
    starts, ends, _ = matched(query, photo, Recipe(max_residual_px=1e6))
    kept, kept_ends, _ = matched(query, photo)
    others = ~(starts[:, None] == kept[None]).all(axis=2).any(axis=1)
    lines = [(starts[others], ends[others], ORANGE), (kept[::3], kept_ends[::3], GREEN)]
    draw_lines(query, photo, lines, FOLDER / "inliers.jpg")
    averaged(FOLDER / "averaged.svg")
    moved_query(FOLDER / "moved.svg")
    spread(FOLDER / "spread.svg")
    named(FOLDER / "named.svg")


if __name__ == "__main__":
    main()
