import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.features.regions import rmac_boxes

sides = st.integers(1, 3000)


def test_a_square_has_1_4_and_9_squares_and_the_whole():
    boxes = rmac_boxes(60, 60)
    assert boxes.dtype == np.float32
    width = boxes[:, 2] - boxes[:, 0]
    np.testing.assert_array_equal(width, [60, 60] + 4 * [40] + 9 * [30])
    # Scale 2, by hand: centres floor(40 / 2 - 1) + {0, 20}, less the half side again.
    np.testing.assert_array_equal(boxes[2:6, :2], [[0, 0], [20, 0], [0, 20], [20, 20]])


def test_a_4_to_3_photo_has_one_more_square_along_its_long_side():
    boxes = rmac_boxes(1024, 768)
    assert len(boxes) == 1 + 2 + 2 * 3 + 3 * 4
    np.testing.assert_array_equal(boxes[1:3], [[0, 0, 768, 768], [256, 0, 1024, 768]])


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 4))
def test_boxes_lie_inside_are_square_and_cover_the_long_side(width, height, scales):
    boxes = rmac_boxes(width, height, scales=scales)
    np.testing.assert_array_equal(boxes[0], [0, 0, width, height])
    assert (boxes[:, :2] >= 0).all()
    assert boxes[:, 2].max() <= width
    assert boxes[:, 3].max() <= height
    size = boxes[1:, 2:] - boxes[1:, :2]
    assert (size >= 1).all()
    np.testing.assert_array_equal(size[:, 0], size[:, 1])
    np.testing.assert_array_equal(boxes, np.floor(boxes))
    assert boxes[1:, 2].max() >= width - 1
    assert boxes[1:, 3].max() >= height - 1


@settings(max_examples=30, deadline=None)
@given(sides, sides)
def test_turning_the_photo_turns_its_boxes(width, height):
    turned = rmac_boxes(height, width)[:, [1, 0, 3, 2]]
    assert {tuple(box) for box in turned} == {tuple(box) for box in rmac_boxes(width, height)}


@pytest.mark.parametrize("arguments", [(0, 5, 3), (5, -1, 3), (5, 5, 0)])
def test_no_regions_of_nothing(arguments):
    width, height, scales = arguments
    with pytest.raises(LmrError, match="no regions"):
        rmac_boxes(width, height, scales=scales)
