"""A world of landmarks that never were: its plan, its photos one by one, and a folder of them with the truth.

Every photo follows from the world's seed and its own spec alone, so any of them can be rendered anywhere,
without the others. Pixels are the same in every process on one machine and one version of OpenCV; another
version may differ by rounding.
"""

from dataclasses import dataclass, fields
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError, SettingsError
from lmr.testing.building import SIDES, Building, design, wall_plane
from lmr.testing.geometry import Camera, Matrix, plane_homography
from lmr.testing.others import closeup, landscape, room
from lmr.testing.photograph import VIEWS, photo_size, photograph, stand
from lmr.testing.styles import STYLES

__all__ = ["PhotoSpec", "World", "face_homography", "jpeg", "photos", "render"]

Subject = Literal["building", "landscape", "room", "closeup"]

# What a random stream is for: the second number of its seed.
_LAYOUT, _LANDMARK, _OTHER, _PIXELS, _JPEG, _OTHERS_LAYOUT = range(6)

# Most photos show the front or the side to its right; the corner between them joins the two. Queries rarely
# see what few gallery photos see.
_GALLERY_VIEWS = np.array([0.42, 0.25, 0.14, 0.03, 0.03, 0.01, 0.05, 0.07])
_QUERY_VIEWS = np.array([0.60, 0.18, 0.15, 0.0, 0.01, 0.0, 0.02, 0.04])
_SUBJECTS: tuple[Subject, ...] = ("building", "landscape", "room", "closeup")
_SUBJECT_SHARES = np.array([0.55, 0.18, 0.17, 0.10])


@dataclass(frozen=True, kw_only=True)
class World:
    """How large a world is, and which one.

    Attributes
    ----------
    landmarks
        Buildings that the gallery shows more than once.
    gallery_per_landmark
        Fewest and most gallery photos of a landmark.
    queries
        Query photos, all told.
    distractors
        Gallery photos of other things: buildings of the same styles, landscapes, rooms, surfaces.
    queries_without_landmark
        How many of the queries show no landmark of the gallery.
    long_side_px
        Long side of every photo.
    seed
        Which world.

    Raises
    ------
    SettingsError
        If a number is out of range.
    """

    landmarks: int = 24
    gallery_per_landmark: tuple[int, int] = (2, 12)
    queries: int = 36
    distractors: int = 60
    queries_without_landmark: int = 4
    long_side_px: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
                raise SettingsError(
                    f"{field.name} must hold whole numbers, 0 or more",
                    got=repr(value),
                    fix="give counts, pixels and the seed as non-negative int",
                )
        lo_hi = self.gallery_per_landmark
        if len(lo_hi) != 2 or not 1 <= lo_hi[0] <= lo_hi[1]:
            raise SettingsError(
                "gallery_per_landmark must be (fewest, most), at least 1 each",
                got=repr(lo_hi),
                fix="for example (2, 12)",
            )
        if self.queries_without_landmark > self.queries:
            raise SettingsError(
                "queries_without_landmark is a part of queries and cannot exceed it",
                got=f"{self.queries_without_landmark} of {self.queries}",
                fix="raise queries, or lower queries_without_landmark",
            )
        if self.landmarks == 0 and self.queries > self.queries_without_landmark:
            raise SettingsError(
                "a world with no landmark has none to query",
                got="landmarks=0",
                fix="set landmarks, or make every query one without a landmark",
            )
        if not 64 <= self.long_side_px <= 2048:
            raise SettingsError(
                "long_side_px is out of range", got=str(self.long_side_px), fix="choose 64 to 2048 pixels"
            )


@dataclass(frozen=True, kw_only=True)
class PhotoSpec:
    """What one photo shows.

    Attributes
    ----------
    id
        16 hexadecimal digits, unique in the world; also the seed of everything that is this photo's alone.
    set
        The set it belongs to.
    landmark
        Name of its landmark; '' if it shows none.
    subject
        What it shows; a landmark is always a building.
    scene
        Number of the landmark, or of the other scene, among its kind.
    style
        Number of the building's style; unused for other subjects.
    view
        Where the photographer stands, one of `photograph.VIEWS`; unused for other subjects.
    """

    id: str
    set: Literal["gallery", "query"]
    landmark: str
    subject: Subject
    scene: int
    style: int
    view: str


def _photo_id(world: World, number: int) -> str:
    # SplitMix64's finaliser is a bijection of 64-bit words: ids look random and cannot collide in a world.
    mask = (1 << 64) - 1
    z = (number + (world.seed + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return f"{z ^ (z >> 31):016x}"


def photos(world: World) -> list[PhotoSpec]:
    """Plan all photos of a world without rendering any; gallery first, each set in order of id."""
    gallery: list[PhotoSpec] = []
    queries: list[PhotoSpec] = []

    def add(to: list[PhotoSpec], name: str, subject: Subject, scene: int, style: int, view: int) -> None:
        number = len(gallery) + len(queries)
        which: Literal["gallery", "query"] = "gallery" if to is gallery else "query"
        to.append(
            PhotoSpec(
                id=_photo_id(world, number),
                set=which,
                landmark=name,
                subject=subject,
                scene=scene,
                style=style,
                view=VIEWS[view],
            )
        )

    rng = np.random.default_rng([world.seed, _LAYOUT])
    styles = rng.integers(0, len(STYLES), world.landmarks)
    lo, hi = world.gallery_per_landmark
    counts = rng.integers(lo, hi + 1, world.landmarks)
    for scene, (count, style) in enumerate(zip(counts, styles, strict=True)):
        views = rng.choice(len(VIEWS), count, p=_GALLERY_VIEWS)
        # The chain front, corner, right side is there wherever a landmark has photos enough for it.
        views[: min(3, count)] = (0, 1, 2)[: min(3, count)]
        for view in views:
            add(gallery, _name(scene), "building", scene, int(style), int(view))
    shown = rng.permutation(world.landmarks)
    for i in range(world.queries - world.queries_without_landmark):
        scene = int(shown[i % world.landmarks])
        view = int(rng.choice(len(VIEWS), p=_QUERY_VIEWS))
        add(queries, _name(scene), "building", scene, int(styles[scene]), view)

    rng = np.random.default_rng([world.seed, _OTHERS_LAYOUT])
    others = world.distractors + world.queries_without_landmark
    subjects = rng.choice(len(_SUBJECTS), others, p=_SUBJECT_SHARES)
    other_styles = rng.integers(0, len(STYLES), others)
    other_views = rng.choice(len(VIEWS), others, p=_QUERY_VIEWS)
    for i, (subject, style, view) in enumerate(zip(subjects, other_styles, other_views, strict=True)):
        to = gallery if i < world.distractors else queries
        add(to, "", _SUBJECTS[subject], i, int(style), int(view))
    return sorted(gallery, key=lambda p: p.id) + sorted(queries, key=lambda p: p.id)


def _name(scene: int) -> str:
    return f"landmark-{scene:05d}"


def _building(world: World, spec: PhotoSpec) -> Building:
    return design(spec.style, (world.seed, _LANDMARK if spec.landmark else _OTHER, spec.scene))


def _pixel_rng(world: World, spec: PhotoSpec) -> np.random.Generator:
    return np.random.default_rng([world.seed, _PIXELS, int(spec.id, 16)])


def render(world: World, spec: PhotoSpec) -> NDArray[np.uint8]:
    """Render one photo of a world: (h, w, 3) uint8 RGB, before JPEG compression."""
    rng = _pixel_rng(world, spec)
    if spec.subject == "building":
        return photograph(rng, _building(world, spec), spec.view, world.long_side_px)
    scene = {"landscape": landscape, "room": room, "closeup": closeup}[spec.subject]
    return scene(rng, world.long_side_px)


def jpeg(world: World, spec: PhotoSpec) -> bytes:
    """Render one photo and compress it as its owner did, at quality 45 to 95."""
    quality = int(np.random.default_rng([world.seed, _JPEG, int(spec.id, 16)]).integers(45, 96))
    bgr = cv2.cvtColor(render(world, spec), cv2.COLOR_RGB2BGR)
    done, buffer = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise LmrError(f"photo {spec.id} cannot be encoded", fix="check that this OpenCV writes JPEG")
    return bytes(buffer)


def face_homography(world: World, spec: PhotoSpec, side: str) -> Matrix:
    """Return where one wall of the photographed building lies in the photo: the truth for matching.

    Parameters
    ----------
    world, spec
        The photo; it must show a building.
    side
        'front', 'right', 'back' or 'left' of the main body.

    Returns
    -------
    (3, 3) float64 homography from metres (right, down) on the wall to pixels (x, y). For two photos of one
    building, ``H2 @ inv(H1)`` takes that wall's pixels from the first to the second.

    Raises
    ------
    LmrError
        If the photo shows no building, or the wall is turned away from the camera.
    """
    if spec.subject != "building":
        raise LmrError(
            f"photo {spec.id} shows no building", got=spec.subject, fix="ask for a photo of a building"
        )
    if side not in SIDES:
        raise LmrError("a building has four sides", got=side, fix=f"choose one of {', '.join(SIDES)}")
    building, rng = _building(world, spec), _pixel_rng(world, spec)
    camera: Camera = stand(rng, building, spec.view, photo_size(rng, world.long_side_px))
    plane = wall_plane(building.main, SIDES.index(side))
    if not plane.faces(camera):
        raise LmrError(
            f"photo {spec.id} does not show the {side}", got=f"view {spec.view}", fix="ask for another side"
        )
    return plane_homography(camera, plane)
