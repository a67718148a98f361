"""A small synthetic world of landmarks, rendered photo by photo: for the demo, tests and scale benchmarks."""

from lmr.testing.world import PhotoSpec, World, face_homography, jpeg, photos, render
from lmr.testing.write import write_world

__all__ = ["PhotoSpec", "World", "face_homography", "jpeg", "photos", "render", "write_world"]
