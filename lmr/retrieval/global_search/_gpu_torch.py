"""Products and their largest by torch: matmul and top-k, a block of bounded size at a time.

The only file of this room that imports torch, and only `nearest.gpu_engine` imports it.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from lmr.retrieval.global_search.exact import Descriptors, spans

__all__ = ["VERSION", "TorchEngine", "count"]

VERSION = torch.__version__
UPLOADED_AT_ONCE = 1 << 16  # gallery rows
GALLERY_TILE = 1 << 18
PRODUCTS = 1 << 28  # of a block of queries with a tile of the gallery: 1 GiB
GROUP = 32  # products of which the largest is looked at first
SHARE = 0.5  # of the free memory that the gallery may take; products and their choice need the rest


def count() -> int:
    """Return how many GPUs torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class TorchEngine:
    """Searches on one device.

    Parameters
    ----------
    device
        "cuda", "cuda:1"; "cpu" does the same, slower than `top_k`, for tests.
    gallery_bytes
        Most bytes of gallery rows on the device; None: half of a GPU's free memory.
    products
        Products that are held at a time.
    """

    def __init__(self, device: str, *, gallery_bytes: int | None = None, products: int = PRODUCTS) -> None:
        self.device = torch.device(device)
        self.products = products
        self.name = f"torch {VERSION} on {device}"
        if self.device.type == "cuda":
            # Also what torch starts with; another library of this process may have chosen TF32.
            torch.backends.cuda.matmul.allow_tf32 = False
            self.name = f"torch {VERSION} on {torch.cuda.get_device_name(self.device)}"
        if gallery_bytes is None:
            free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 2 << 30
            gallery_bytes = int(SHARE * free)
        self.gallery_bytes = gallery_bytes

    def load(self, rows: Descriptors) -> "TorchRows":
        """Take gallery rows to the device as float32; see `Engine`."""
        try:
            held = torch.empty(rows.shape, dtype=torch.float32, device=self.device)
            for lo, hi in spans(len(rows), UPLOADED_AT_ONCE):
                # Halves travel as halves: the way to the device is the slowest part.
                held[lo:hi] = torch.from_numpy(np.array(rows[lo:hi])).to(self.device)
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        return TorchRows(held, self.products)


class TorchRows:
    """Gallery rows on a device, (n, d) float32.

    Parameters
    ----------
    rows
        The rows.
    products
        Products that are held at a time.
    """

    def __init__(self, rows: torch.Tensor, products: int) -> None:
        self.rows = rows
        self.products = products

    def __call__(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the `count` largest products of each query, and the places of their rows."""
        tile = min(GALLERY_TILE, len(self.rows), self.products)
        found = [
            self._search(queries[lo:hi], count, tile) for lo, hi in spans(len(queries), self.products // tile)
        ]
        products, places = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
        return products, places

    def _search(
        self, queries: NDArray[np.float32], count: int, tile: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            asked = torch.from_numpy(queries).to(self.rows.device)
            best: list[tuple[torch.Tensor, torch.Tensor]] = []
            for lo, hi in spans(len(self.rows), tile):
                products, places = largest(asked @ self.rows[lo:hi].T, min(count, hi - lo))
                best = [*best, (products, places + lo)]
                if len(best) > 1:
                    joined, rows = (torch.cat(pair, 1) for pair in zip(*best, strict=True))
                    products, order = joined.topk(min(count, joined.shape[1]), dim=1)
                    best = [(products, rows.gather(1, order))]
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        return best[0]


def largest(products: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` largest of each row, and their columns; of equal ones any.

    The largest of all lie in the `count` groups with the largest members. So what is sorted is a group's
    largest member, and then the members of those groups: the products are read once.
    """
    groups = products.shape[1] // GROUP
    if groups <= 4 * count:
        return products.topk(count, dim=1)
    whole = products[:, : groups * GROUP].view(len(products), groups, GROUP)
    chosen = whole.amax(2).topk(count, dim=1).indices
    members = whole.gather(1, chosen[:, :, None].expand(-1, -1, GROUP)).flatten(1)
    columns = (chosen[:, :, None] * GROUP + torch.arange(GROUP, device=products.device)).flatten(1)
    rest = products[:, groups * GROUP :]  # fewer than a group
    places = torch.arange(groups * GROUP, products.shape[1], device=products.device).expand(len(rest), -1)
    best, order = torch.cat([members, rest], 1).topk(count, dim=1)
    return best, torch.cat([columns, places], 1).gather(1, order)
