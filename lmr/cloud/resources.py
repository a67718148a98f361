"""The files of deploy/aws, which the wheel carries inside the package."""

from pathlib import Path

__all__ = ["resource"]

PACKAGED = Path(__file__).parent / "deploy"
CHECKOUT = Path(__file__).parents[2]


def resource(name: str) -> Path:
    """Return a file of deploy/aws, or `constraints.txt`: from the installed package, or from the checkout."""
    packaged = PACKAGED / name
    if packaged.is_file():
        return packaged
    return CHECKOUT / name if name == "constraints.txt" else CHECKOUT / "deploy" / "aws" / name
