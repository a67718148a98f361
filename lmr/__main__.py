"""`lmr` and `python -m lmr`: the command line."""

from lmr.cli import interrupts

__all__ = ["main"]


def main() -> None:
    """Load the command line and run it."""
    interrupts.leave_at_once()
    from lmr.cli.main import main as command

    interrupts.note()
    command()


if __name__ == "__main__":
    main()
