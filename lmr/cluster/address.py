"""Addresses of schedulers and of this machine."""

import socket

__all__ = ["own_host"]


def own_host(address: str) -> str:
    """Return the address of this machine that a scheduler sees, as its workers give it."""
    host, port = address.rpartition("://")[2].rsplit(":", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))
        name: str = probe.getsockname()[0]
    return name
