"""A COLMAP database: images, cameras, features, and verified pairs with their inliers.

An image is named `gallery/PATH` or `queries/PATH`, as for hloc. COLMAP counts from the left edge of the first
pixel, so its keypoints are ours plus one half.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lmr.errors import LmrError
from lmr.steps.results.export.photos import ImageNames, PhotoFeatures, photo_features, verified_pairs
from lmr.steps.results.export.tables import Kind
from lmr.steps.results.folder.datasets import RunDatasets

__all__ = ["COLMAP", "write_colmap"]

COLMAP: tuple[Kind, ...] = ("pairs", "features")
"""What a database of COLMAP holds."""

_FOCAL_PER_SIDE = 1.2
"""COLMAP's own guess of a focal length that nobody told, in long sides of the photo."""


def write_colmap(run: RunDatasets, what: Kind, folder: Path) -> str:
    """Write `database.db` into an existing folder; return what it does not carry, for people.

    With `what` "pairs" the verified pairs stand in it besides the features that they name: their inliers as
    matches and as a two-view geometry. RootSIFT's descriptors are COLMAP's own kind and come along.

    Raises
    ------
    LmrError
        If pycolmap is not installed, or the run has no features.
    """
    pycolmap = _pycolmap()
    names, images = ImageNames(run), dict[tuple[str, int], int]()
    foreign = False
    with pycolmap.Database.open(folder / "database.db") as database:
        for one in photo_features(run):
            images[one.role, one.row] = _add_image(pycolmap, database, names.of(one.role, one.row), one)
            foreign |= not _is_sift(one)
        for pair in verified_pairs(run) if what == "pairs" else ():
            first, second = images["queries", pair.query], images["gallery", pair.photo]
            matches = pair.matches.astype(np.uint32)
            database.write_matches(first, second, matches)
            geometry = pycolmap.TwoViewGeometry()
            # A transform between photos is neither of COLMAP's matrices, which it finds itself.
            geometry.config = pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED
            geometry.inlier_matches = matches
            database.write_two_view_geometry(first, second, geometry)
    return "COLMAP takes uint8 descriptors of 128 numbers only: descriptors left out" if foreign else ""


def _add_image(pycolmap: Any, database: Any, name: str, one: PhotoFeatures) -> int:
    """Add a photo with a camera, a rig and a frame of its own, as COLMAP does; return the image's number."""
    width, height = one.size_px
    focal_px = _FOCAL_PER_SIDE * max(width, height)
    camera = pycolmap.Camera.create_from_model_name(0, "SIMPLE_RADIAL", focal_px, width, height)
    camera.camera_id = database.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    rig_id = database.write_rig(rig)
    image = pycolmap.Image(name=name, camera_id=camera.camera_id)
    image.image_id = database.write_image(image)
    frame = pycolmap.Frame()
    frame.rig_id = rig_id
    frame.add_data_id(image.data_id)
    database.write_frame(frame)
    # Places alone: what extractors call a feature's scale is not one thing, and mapping does not ask for it.
    database.write_keypoints(image.image_id, one.xy + np.float32(0.5))
    if _is_sift(one):
        kind = pycolmap.FeatureExtractorType.SIFT
        database.write_descriptors(image.image_id, pycolmap.FeatureDescriptors(kind, one.descriptors))
    return int(image.image_id)


def _is_sift(one: PhotoFeatures) -> bool:
    return one.descriptors.dtype == np.uint8 and one.descriptors.shape[1] == 128


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ModuleNotFoundError as error:
        raise LmrError(
            "COLMAP's files need a package", got=str(error), fix='pip install "lmr[export]"'
        ) from error
    return pycolmap
