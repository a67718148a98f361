#!/bin/sh
# The first line of the log tells what runs; then the container becomes `lmr ARGUMENTS`. Whoever starts Dask's own
# commands in an image (the operator on Kubernetes, Coiled) gets them.
set -eu
python -m lmr.versions
case ${1-} in
dask | dask-* | python | python3 | sh) exec "$@" ;;
*) exec lmr "$@" ;;
esac
