# syntax=docker/dockerfile:1
# Build: docker build -t bids_brainlm:0.1.0 .
# Without an engine, scripts/build_by_hand.py runs these same lines (docs/how-to/docker.md); it knows the instructions used here.
ARG PYTHON=3.11.13-slim-bookworm
ARG VERSION=0.1.0

FROM python:${PYTHON} AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/build && /opt/build/bin/pip install -c constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY bids_brainlm ./bids_brainlm
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps -w /wheels .

FROM python:${PYTHON} AS install
# An index of CPU builds makes an image of about 2 GB; without it, PyPI's torch brings CUDA (about 8 GB) and runs on both.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt ./
COPY --from=wheel /wheels /wheels
RUN python -m venv /opt/venv && /opt/venv/bin/pip install -c constraints.txt /wheels/*.whl

FROM install AS templates
ENV TEMPLATEFLOW_HOME=/opt/templateflow
COPY scripts/fetch_templates.py ./
RUN /opt/venv/bin/python fetch_templates.py && chmod -R a+rX,go-w /opt/templateflow

FROM python:${PYTHON}
ARG VERSION
LABEL org.opencontainers.image.title="bids_brainlm" \
      org.opencontainers.image.description="BIDS App that turns fMRI into language" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# The home is open to all: clusters run containers under user ids that no image knows.
RUN useradd --no-create-home --home-dir /home/brainlm brainlm && install -d -m 0777 -o brainlm -g brainlm /home/brainlm
COPY --from=install /opt/venv /opt/venv
COPY --from=templates /opt/templateflow /opt/templateflow
# HF_HOME is not set: it follows HOME, which Apptainer makes the user's own.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HOME=/home/brainlm \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    TEMPLATEFLOW_AUTOUPDATE=off \
    MPLBACKEND=Agg \
    OMP_NUM_THREADS=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BIDS_BRAINLM_DOCKER_TAG=bids_brainlm:${VERSION}
USER brainlm
WORKDIR /tmp
ENTRYPOINT ["/opt/venv/bin/bids_brainlm"]
