"""The one door to torchvision, open also where its compiled operators do not fit the installed torch.

A torchvision wheel's C++ library is linked to the CUDA build of torch. Beside a CPU torch it cannot be
loaded, and the import then fails while it registers two operators that were never defined. Neither is used
here: networks are plain Python. So the two are declared first, without a body; whoever calls one gets
torchvision's own message that its operators could not be loaded.
"""

import importlib.util
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from lmr.errors import LmrError

__all__ = ["torchvision"]

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
UNDEFINED = ("nms", "qnms")  # the only operators that torchvision registers without looking for their library
_declared: list[torch.library.Library] = []  # torch forgets a declaration whose library is collected


@cache
def torchvision() -> ModuleType:
    """Return the torchvision module.

    Raises
    ------
    LmrError
        If torchvision is not installed.
    """
    found = importlib.util.find_spec("torchvision")  # looks, but does not import
    if found is None or found.origin is None:
        raise LmrError("torchvision is not installed", fix='pip install "lmr[features]"')
    library = next(iter(sorted(Path(found.origin).parent.glob("_C*.so"))), None)
    try:
        if library is None:
            raise OSError("no compiled operators")
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError:
        if not _declared:  # a second declaration, after an import that failed, would be an error
            stub = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for operator in UNDEFINED:
                stub.define(operator + SCHEMA)  # type: ignore[no-untyped-call]
            _declared.append(stub)
    with warnings.catch_warnings():
        # "Failed to load image Python extension": photos are decoded by Pillow.
        warnings.filterwarnings("ignore", module=r"torchvision\.")
        return importlib.import_module("torchvision")
