"""Small clustered unit vectors for the tests of neighbours, expansion and diffusion."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["clusters"]


def clusters(n: int, d: int, seed: int, *, size: int = 12, noise: float = 0.5) -> NDArray[np.float32]:
    """Return n unit vectors around ceil(n / size) centres, (n, d) float32, shuffled."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((-(-n // size), d))
    x = np.repeat(centres, size, axis=0)[:n] + noise * rng.standard_normal((n, d))
    return rng.permutation(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
