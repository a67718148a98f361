"""Photos of nothing in particular, and what agencies and cameras draw over photos."""

import cv2
import numpy as np

__all__ = ["across", "caption", "noise_photo"]

FONT = cv2.FONT_HERSHEY_SIMPLEX


def noise_photo(rng, width, height):
    """Return a (height, width, 3) photo with blobs of all sizes, unlike any other."""
    photo = np.zeros((height, width, 3), np.float32)
    for cells in (6, 16, 40):
        coarse = rng.uniform(size=(cells * height // width + 1, cells, 3)).astype(np.float32)
        photo += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(60 + photo * (135 / 3), 0, 255).astype(np.uint8)


def caption(photo):
    """Write a line along the bottom."""
    height, width = photo.shape[:2]
    cv2.rectangle(photo, (0, height - 22), (width, height), (235, 235, 235), -1)
    cv2.putText(photo, "Picture agency 2019", (8, height - 7), FONT, 0.5, (20, 20, 20), 1)


def across(photo):
    """Draw a watermark through the middle, half transparent."""
    height, width = photo.shape[:2]
    drawn = photo.copy()
    for line, text in enumerate(("SAMPLE", "agency.test")):
        place = (width // 2 - 110, height // 2 - 10 + 50 * line)
        cv2.putText(drawn, text, place, FONT, 1.5 - 0.4 * line, (255, 255, 255), 3)
    cv2.circle(drawn, (width // 2, height // 2 + 10), 70, (255, 255, 255), 2)
    photo[:] = cv2.addWeighted(drawn, 0.6, photo, 0.4, 0)
