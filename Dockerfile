# syntax=docker/dockerfile:1
# Build: docker build -t bids_brainlm:0.1.0 .
# Every step is an ordinary command that can be run by hand in a root file system (docs/how-to/docker.md).
ARG PYTHON=3.11.13-slim-bookworm

FROM python:${PYTHON} AS build
# An index of CPU builds makes an image of about 2 GB; without it, PyPI's torch brings CUDA (about 8 GB) and runs on both.
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL} PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/venv
COPY pyproject.toml README.md LICENSE ./
COPY bids_brainlm ./bids_brainlm
RUN /opt/venv/bin/pip install -c constraints.txt .

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="bids_brainlm" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
# The home is open to all: clusters run containers under user ids that no image knows.
RUN useradd --create-home --home-dir /home/brainlm brainlm && chmod -R a+rwX /home/brainlm
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/brainlm \
    HF_HOME=/home/brainlm/.cache/huggingface \
    TEMPLATEFLOW_HOME=/home/brainlm/.cache/templateflow \
    MPLCONFIGDIR=/tmp/matplotlib \
    MPLBACKEND=Agg \
    OMP_NUM_THREADS=1 \
    PYTHONUNBUFFERED=1
USER brainlm
WORKDIR /tmp
ENTRYPOINT ["/opt/venv/bin/bids_brainlm"]
