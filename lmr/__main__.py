"""`python -m lmr`: the command line."""

from lmr.cli.main import main

if __name__ == "__main__":
    main()
