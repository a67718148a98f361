"""Opens ONNX models as extractors: anyone's file, and EfficientNet-Lite0 from its published weights."""

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from os import PathLike
from pathlib import Path

from lmr.errors import LmrError
from lmr.features.networks.lite0 import lite0_graph
from lmr.features.networks.onnx_extractor import OnnxExtractor
from lmr.features.networks.onnx_runtime import Network, OpenCvNetwork, RuntimeNetwork, Shape, has_runtime
from lmr.features.settings import OnnxSettings
from lmr.features.weights.digests import sha256_of_bytes
from lmr.features.weights.packaged import LITE0
from lmr.features.weights.state_dicts import read_state_dict

__all__ = ["load_lite0", "load_onnx"]

GRAPH_SHA256 = "c5597a83596729eee76197a1ea6c7c30aaa5e294e4bdb2b1ec1377eba2670e1a"
"""Of the graph that `lite0_graph` builds from the packaged weights."""
HALVES = (0.5, 0.5, 0.5)  # the mean and the deviation: Lite networks take pixels in -1 .. 1


def load_onnx(model: str | PathLike[str], settings: OnnxSettings | None = None) -> OnnxExtractor:
    """Open an ONNX model that takes a normalised image and returns a vector, a feature map or tokens.

    Parameters
    ----------
    model
        The file, or a folder that holds one `.onnx` file beside its data.
    settings
        What the model does not say; the defaults are those of `OnnxSettings`.

    Raises
    ------
    LmrError
        If ONNX Runtime is missing, the file cannot be read, or its input or output is of another kind.
    """
    path, settings = _model_in(Path(model)), settings or OnnxSettings()
    network = RuntimeNetwork(str(path), name=path.name, input=settings.input, output=settings.output)
    size, channels_last = _image_of(network.input_shape, path.name)
    return OnnxExtractor(network, settings, name=path.stem, size=size, channels_last=channels_last)


def load_lite0(
    weights: str | PathLike[str] | None = None,
    *,
    p: float = 3.0,
    sizes_px: Sequence[int] = (640, 320),
    cache: Path | None = None,
) -> OnnxExtractor:
    """Open EfficientNet-Lite0 with GeM, without torch.

    Parameters
    ----------
    weights
        The published state dict; None: the one in the installed package of weights.
    p
        GeM's power.
    sizes_px
        Long sides at which a photo is described; regions come from the largest.
    cache
        Folder that keeps the graph of the packaged weights; None keeps none.

    Raises
    ------
    LmrError
        If the weights are missing or of another network.
    """
    network: Network
    if not has_runtime():
        network = OpenCvNetwork(partial(lite0_graph, read_state_dict(weights or LITE0.path())))
    elif weights is None and cache is not None:
        network = RuntimeNetwork(_kept_graph(cache), name="EfficientNet-Lite0")
    else:
        model = lite0_graph(read_state_dict(weights or LITE0.path()))
        network = RuntimeNetwork(model, name="EfficientNet-Lite0")
    settings = OnnxSettings(mean=HALVES, std=HALVES, sizes_px=tuple(sizes_px), pooling="gem", p=p)
    return OnnxExtractor(network, settings, name="efficientnet_lite0-gem")


def _kept_graph(cache: Path) -> bytes:
    """Return the graph of the packaged weights, from the cache where it is whole; else build and keep it."""
    kept = cache / f"efficientnet_lite0-{GRAPH_SHA256[:16]}.onnx"
    with suppress(OSError):
        model = kept.read_bytes()
        if sha256_of_bytes(model) == GRAPH_SHA256:
            return model
    model = lite0_graph(read_state_dict(LITE0.path()))
    temporary = kept.with_name(f".{kept.name}.{uuid.uuid4().hex}")
    with suppress(OSError):  # where nothing can be kept, it is built again next time: 0.2 s
        cache.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(model)
        os.replace(temporary, kept)
    return model


def _model_in(path: Path) -> Path:
    if not path.exists():
        raise LmrError(f"there is no model at {path}", fix="check the path given as --weights")
    if not path.is_dir():
        return path
    models = sorted(path.glob("*.onnx"))
    if len(models) != 1:
        raise LmrError(
            f"{path} does not hold one ONNX model",
            got=", ".join(model.name for model in models) or "no .onnx file",
            fix="give the file, or a folder with one .onnx file and its data",
        )
    return models[0]


def _image_of(shape: Shape, name: str) -> tuple[tuple[int, int] | None, bool]:
    """Return the fixed (height, width) of an input, if it has one, and whether its channels are last."""
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or (isinstance(shape[0], int) and shape[0] != 1):
        raise LmrError(
            f"{name} does not take one image",
            got=f"an input of shape {list(shape)}",
            fix="export it with an input of (1, 3, height, width) or (1, height, width, 3)",
        )
    channels_last = shape[1] != 3
    height, width = shape[1:3] if channels_last else shape[2:4]
    if isinstance(height, int) and isinstance(width, int):
        return (height, width), channels_last
    return None, channels_last
