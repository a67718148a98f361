"""Rounds of a small run while workers, nannies, scheduler, client, links and credentials fail at random.

    python benchmarks/chaos.py --rounds 20 --seed 1

Needs root and `ip` (network namespaces), and the tests' requirements. Prints a line per round; ends with
code 1 unless every round ended with the undisturbed run's result, or with a message and a resume that did.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Play the rounds, as `tests/hosts/test_chaos.py` plays a few."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="Number of the first round, to repeat one.")
    parser.add_argument("--keep", help="Folder for the logs; they are kept.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        numbers = [str(number) for number in (chosen.rounds, chosen.first, chosen.seed)]
        command = [sys.executable, "-m", "tests.support.chaos", "rounds", chosen.keep or temporary, *numbers]
        sys.exit(subprocess.call(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}))


if __name__ == "__main__":
    main()
