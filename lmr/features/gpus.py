"""The GPUs of this machine; torch is asked only where networks shall run on them."""

from lmr.errors import ClusterError

__all__ = ["local_gpus"]


def local_gpus(device: str) -> int:
    """Return how many GPUs this machine has, if networks shall run on them.

    Raises
    ------
    ClusterError
        If torch is not installed on this machine.
    """
    if device == "cpu":
        return 0
    try:
        from lmr.features.networks.devices import gpu_count
    except ModuleNotFoundError as error:
        raise ClusterError(
            "this machine cannot run networks", got=str(error), fix="pip install 'lmr[features]'"
        ) from error
    return gpu_count()
