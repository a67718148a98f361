# The image of GPU workers: what cpu.Dockerfile makes, and networks on CUDA.
#
#   docker build -f docker/gpu.Dockerfile -t lmr-gpu .
#   docker run --gpus all lmr-gpu cluster worker tls://HOST:8786 --tls /certs --gpu
#
# CUDA's libraries come as wheels with torch, so the base needs none. The host brings the driver (580 or newer, for
# CUDA 13) and NVIDIA's container toolkit. The base is pinned as in cpu.Dockerfile.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv /opt/lmr
ENV PATH=/opt/lmr/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The dependencies first, of an empty package: a change of lmr's own code does not fetch gigabytes again.
COPY pyproject.toml constraints.txt ./
RUN mkdir -p /empty/lmr && touch /empty/lmr/__init__.py /empty/README.md \
    && sed '/^\[tool\./,$d' pyproject.toml >/empty/pyproject.toml \
    && pip install -q -c constraints.txt "/empty[gpu]"
COPY . .
# torch uses setuptools. A wheel without CUDA would find no GPU, and say so only when a run needs it.
RUN pip install -q --no-deps --force-reinstall . \
    && pip uninstall -q -y pip \
    && python -c "import torch, dask_cuda; assert torch.version.cuda, 'this torch has no CUDA'"

FROM ${BASE_IMAGE}
RUN useradd --uid 1000 --create-home lmr && install -d -m 1777 /cache /var/cache/lmr-numba
COPY docker/entrypoint.sh docker/health.py /usr/local/bin/
COPY --from=build /opt/lmr /opt/lmr
ENV PATH=/opt/lmr/bin:$PATH PYTHONUNBUFFERED=1 LMR_CACHE=/cache/lmr NUMBA_CACHE_DIR=/var/cache/lmr-numba \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER lmr
WORKDIR /home/lmr
RUN lmr render /tmp/world --landmarks 2 --queries 5 --distractors 2 --long-side-px 256 \
    && lmr run retrieval --gallery /tmp/world/gallery --queries /tmp/world/queries --out /tmp/world/run --workers 0 \
    && chmod -R a+rwX /var/cache/lmr-numba/* && rm -rf /tmp/world /cache/lmr
EXPOSE 8786 8787
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "/usr/local/bin/health.py"]
ENTRYPOINT ["entrypoint.sh"]
CMD ["--help"]
