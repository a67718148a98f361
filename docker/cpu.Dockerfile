# The image of schedulers and CPU workers. It holds no torch and no CUDA.
#
#   docker build -f docker/cpu.Dockerfile -t lmr-cpu .
#
# The base is pinned by its tag, which still moves with Python's and Debian's security fixes. For the same
# bytes every time give its digest: --build-arg BASE_IMAGE=python:3.11-slim-bookworm@sha256:...
# Any image with Python 3.11 and its venv module will do.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv /opt/lmr
ENV PATH=/opt/lmr/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The dependencies first, of an empty package: a change of lmr's own code does not fetch them again.
COPY pyproject.toml constraints.txt ./
RUN mkdir -p /empty/lmr && touch /empty/lmr/__init__.py /empty/README.md \
    && sed '/^\[tool\./,$d' pyproject.toml >/empty/pyproject.toml \
    && pip install -q -c constraints.txt /empty
# --build-arg FAISS=faiss-gpu makes the image of workers that search on GPUs: start it by `docker run --gpus all`
# and `cluster worker ... --gpu`, which takes dask-cuda. That faiss excludes the one for CPUs, and its CUDA is
# another than torch's, with which it crashes in one process: so networks have an image of their own.
ARG FAISS=faiss-cpu
RUN [ "$FAISS" = faiss-cpu ] || { pip uninstall -q -y faiss-cpu \
    && pip install -q -c constraints.txt dask-cuda cuda-bindings "$FAISS==$(sed -n 's/^faiss-cpu==//p' constraints.txt)" \
    && python -c "import dask_cuda"; }
COPY . .
# Packages' own tests are left behind, and so is what installs packages.
RUN pip install -q --no-deps --force-reinstall . \
    && pip uninstall -q -y setuptools pip \
    && python -c "import faiss, sys; sys.exit('$FAISS' == 'faiss-gpu' and not hasattr(faiss, 'GpuIndexFlatIP'))" \
    && find /opt/lmr -depth -type d -name tests -exec rm -rf {} + \
    && ! python -c "import torch" 2>/dev/null

FROM ${BASE_IMAGE}
# Any user may be chosen at start (`user:`, `--user`), so what is written to is open to all of the container.
RUN useradd --uid 1000 --create-home lmr && install -d -m 1777 /cache /var/cache/lmr-numba
COPY docker/entrypoint.sh docker/health.py /usr/local/bin/
COPY --from=build /opt/lmr /opt/lmr
ENV PATH=/opt/lmr/bin:$PATH PYTHONUNBUFFERED=1 LMR_CACHE=/cache/lmr NUMBA_CACHE_DIR=/var/cache/lmr-numba
USER lmr
WORKDIR /home/lmr
# A small run, from photos to a report: it shows that the image works, and leaves Numba's compiled code in the
# image. That code serves processors like the one that builds; others compile it once, into the container.
RUN lmr render /tmp/world --landmarks 2 --queries 5 --distractors 2 --long-side-px 256 \
    && lmr run retrieval --gallery /tmp/world/gallery --queries /tmp/world/queries --out /tmp/world/run --workers 0 \
    && chmod -R a+rwX /var/cache/lmr-numba/* && rm -rf /tmp/world /cache/lmr
EXPOSE 8786 8787
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "/usr/local/bin/health.py"]
ENTRYPOINT ["entrypoint.sh"]
CMD ["--help"]
