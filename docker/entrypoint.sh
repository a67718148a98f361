#!/bin/sh
# The first line of the log tells what runs; then the container becomes `lmr ARGUMENTS`.
set -eu
python -m lmr.versions
exec lmr "$@"
