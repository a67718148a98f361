"""The door for ONNX models: small graphs of every kind of output, right numbers, clear errors."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lmr.errors import LmrError
from lmr.features.networks.onnx_models import load_onnx
from lmr.features.regions import rmac_boxes
from lmr.features.settings import OnnxSettings

RGB = (1, 3, "height", "width")
NEUTRAL = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "sizes_px": (64,)}
PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def write(path, nodes, inputs, outputs, constants=(), kind=TensorProto.FLOAT):
    """Write a model with `onnx`'s own helpers, so that nothing of lmr's writer is taken for granted."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in dict(constants).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def map_model(path, inputs=None, last=False):
    """Write a network whose feature map is 5 mixtures of the colours of every 8th pixel."""
    weights = np.abs(np.random.default_rng(1).normal(size=(5, 3, 8, 8))).astype(np.float32) / 64
    first = [helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2])] if last else []
    source = "turned" if last else "image"
    nodes = [*first, helper.make_node("Conv", [source, "w"], ["map"], kernel_shape=[8, 8], strides=[8, 8])]
    outputs = {"map": (1, 5, "rows", "columns")}
    return write(path, nodes, inputs or {"image": RGB}, outputs, {"w": weights}), weights


def expected_map(photo, weights):
    cells = photo.astype(np.float64).reshape(6, 8, 8, 8, 3) / 255
    return np.einsum("rycxk,dkyx->rcd", cells, weights.astype(np.float64))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


POOLS = {
    "gem": lambda cells: (np.maximum(cells, 1e-6) ** 3).mean((0, 1)) ** (1 / 3),
    "avg": lambda cells: cells.mean((0, 1)),
    "max": lambda cells: cells.max((0, 1)),
}


@pytest.mark.parametrize("pooling", [*POOLS, "auto"])
def test_a_feature_map_is_pooled_whole_and_by_regions(pooling, tmp_path):
    path, weights = map_model(tmp_path / "map.onnx")
    (found,) = load_onnx(str(path), OnnxSettings(pooling=pooling, **NEUTRAL))([PHOTO])
    cells, pool = expected_map(PHOTO, weights), POOLS["gem" if pooling == "auto" else pooling]
    boxes = rmac_boxes(8, 6).astype(int)
    regions = np.stack([unit(pool(cells[top:end, left:right])) for left, top, right, end in boxes])
    np.testing.assert_allclose(found.descriptor, unit(pool(cells)), atol=1e-5)
    np.testing.assert_allclose(found.regions, regions, atol=1e-5)


def test_normalisation_and_channels_last(tmp_path):
    first, _ = map_model(tmp_path / "first.onnx")
    last, _ = map_model(tmp_path / "last.onnx", {"image": (1, "height", "width", 3)}, last=True)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normal = OnnxSettings(mean=mean, std=std, sizes_px=(64,), pooling="avg")
    one, two = (load_onnx(path, normal)([PHOTO])[0] for path in (first, last))
    np.testing.assert_allclose(one.regions, two.regions, atol=1e-6)
    _, weights = map_model(tmp_path / "again.onnx")
    shifted = (PHOTO / 255 - mean) / std * 255
    np.testing.assert_allclose(one.descriptor, unit(expected_map(shifted, weights).mean((0, 1))), atol=1e-5)


def test_several_sizes_are_averaged_as_gem_does(tmp_path):
    path, _ = map_model(tmp_path / "map.onnx")
    photo = np.random.default_rng(5).integers(0, 256, (96, 128, 3), np.uint8)

    def described(photo, *sizes):
        return load_onnx(path, OnnxSettings(**{**NEUTRAL, "sizes_px": sizes}))([photo])[0]

    half = np.asarray(Image.fromarray(photo).resize((64, 48), Image.Resampling.BILINEAR))
    both, large, small = described(photo, 128, 64), described(photo, 128), described(half, 64)
    powers = (large.descriptor.astype(np.float64) ** 3 + small.descriptor.astype(np.float64) ** 3) / 2
    np.testing.assert_allclose(both.descriptor, unit(powers ** (1 / 3)), atol=1e-6)
    np.testing.assert_array_equal(both.regions, large.regions)


def test_a_vector_is_the_descriptor_and_its_own_region(tmp_path):
    nodes = [helper.make_node("ReduceMean", ["image"], ["v"], axes=[2, 3], keepdims=0)]
    path = write(tmp_path / "vector.onnx", nodes, {"image": RGB}, {"v": (1, 3)})
    (found,) = load_onnx(path, OnnxSettings(**NEUTRAL))([PHOTO])
    expected = unit(PHOTO.reshape(-1, 3).mean(0))
    np.testing.assert_allclose(found.descriptor, expected, atol=1e-5)
    np.testing.assert_allclose(found.regions, expected[None], atol=1e-5)


def transformer(path, side=56, patch=14):
    """Write what a vision transformer looks like: a fixed size in, a CLS token and one per patch out."""
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(6, 3, patch, patch)).astype(np.float32)
    count = (side // patch) ** 2
    nodes = [
        helper.make_node(
            "Conv", ["image", "w"], ["map"], kernel_shape=[patch, patch], strides=[patch, patch]
        ),
        helper.make_node("Reshape", ["map", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["patches"], perm=[0, 2, 1]),
        helper.make_node("ReduceMax", ["patches"], ["cls"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["cls", "patches"], ["last_hidden_state"], axis=1),
    ]
    constants = {"w": weights, "shape": np.array([1, 6, count], np.int64)}
    shape = {"last_hidden_state": (1, count + 1, 6)}
    return write(path, nodes, {"image": (1, 3, side, side)}, shape, constants)


@pytest.mark.parametrize("pooling", ["auto", "cls", "avg", "max"])
def test_a_vision_transformers_tokens(pooling, tmp_path):
    path = transformer(tmp_path / "vit.onnx")
    rng = np.random.default_rng(3)
    photo = rng.integers(0, 256, (56, 56, 3), np.uint8)
    (found,) = load_onnx(path, OnnxSettings(pooling=pooling))([photo])
    pixels = (photo / 255 - OnnxSettings().mean) / OnnxSettings().std
    session = onnxruntime.InferenceSession(str(path))
    tokens = session.run(None, {"image": pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    if pooling in ("auto", "cls"):
        np.testing.assert_allclose(found.descriptor, unit(tokens[0]), atol=1e-5)
        assert found.regions.shape == (1, 6)
    else:
        pool = POOLS[pooling]
        cells = tokens[1:].reshape(4, 4, 6)
        np.testing.assert_allclose(found.descriptor, unit(pool(cells)), atol=1e-5)
        assert len(found.regions) == len(rmac_boxes(4, 4))


def test_a_fixed_size_is_stretched_or_cut(tmp_path):
    path = transformer(tmp_path / "vit.onnx")
    photo = np.zeros((56, 168, 3), np.uint8)
    photo[:, 56:112] = np.random.default_rng(4).integers(0, 256, (56, 56, 3), np.uint8)
    cut = load_onnx(path, OnnxSettings(fit="crop"))([photo])[0]
    middle = load_onnx(path, OnnxSettings())([np.ascontiguousarray(photo[:, 56:112])])[0]
    np.testing.assert_array_equal(cut.descriptor, middle.descriptor)
    assert not np.allclose(load_onnx(path, OnnxSettings())([photo])[0].descriptor, cut.descriptor)


def test_a_folder_with_one_model_and_its_data_is_opened(tmp_path):
    (tmp_path / "model").mkdir()
    path, _ = map_model(tmp_path / "model" / "net.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    assert load_onnx(tmp_path / "model", OnnxSettings(**NEUTRAL)).dimension == 5
    map_model(tmp_path / "model" / "second.onnx")
    with pytest.raises(LmrError, match="does not hold one ONNX model"):
        load_onnx(tmp_path / "model")


def gray(path):
    nodes = [helper.make_node("ReduceMean", ["image"], ["v"], axes=[2, 3], keepdims=0)]
    return write(path, nodes, {"image": (1, 1, "h", "w")}, {"v": (1, 1)})


def two_inputs(path):
    nodes = [helper.make_node("Add", ["image", "mask"], ["map"])]
    return write(path, nodes, {"image": RGB, "mask": RGB}, {"map": RGB})


def whole_numbers(path):
    nodes = [helper.make_node("Cast", ["image"], ["map"], to=TensorProto.FLOAT)]
    return write(path, nodes, {"image": RGB}, {"map": RGB}, kind=TensorProto.UINT8)


def five_axes(path):
    nodes = [helper.make_node("Unsqueeze", ["image", "axes"], ["map"])]
    return write(path, nodes, {"image": RGB}, {"map": (1, 1, 3, "h", "w")}, {"axes": np.array([1])})


def not_a_number(path):
    nodes = [helper.make_node("Log", ["image"], ["map"])]
    return write(path, nodes, {"image": RGB}, {"map": RGB})


def no_model(path):
    path.write_bytes(b"<html>not found</html>")
    return path


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (gray, {}, "does not take one image"),
        (two_inputs, {}, "input is not clear"),
        (two_inputs, {"input": "picture"}, "input picture is not there"),
        (whole_numbers, {}, "does not take images of floats"),
        (five_axes, {}, "neither a vector, nor a feature map, nor tokens"),
        (not_a_number, {"mean": (0, 0, 0)}, "returns NaN or infinity"),
        (no_model, {}, "cannot be read as an ONNX model"),
        (lambda path: map_model(path)[0], {"output": "head"}, "output head is not there"),
        (lambda path: map_model(path)[0], {"pooling": "cls"}, "a feature map, which has no first token"),
        (lambda path: map_model(path)[0], {"sizes_px": ()}, "descriptors need a size"),
        (transformer, {"pooling": "avg", "extra_tokens": 17}, "returns no tokens of patches"),
    ],
)
def test_what_does_not_fit_is_told(make, settings, message, tmp_path):
    with pytest.raises(LmrError, match=message) as told:
        load_onnx(make(tmp_path / "model.onnx"), OnnxSettings(**settings))
    assert told.value.fix


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(LmrError, match="there is no model at"):
        load_onnx(str(tmp_path / "none.onnx"))
