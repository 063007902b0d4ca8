# syntax=docker/dockerfile:1
#
# Two images from one file:
#   docker build --target train   -t classifier-training .           trains; CUDA comes with the torch wheels
#   docker build --target predict -t classifier-training:predict .   predicts and verifies on the CPU, without torch
#
# Both run as an ordinary user, hold no secret, and start Python as process 1, so that SIGTERM reaches it.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm


# The package is built apart, so that no build tool reaches an image that runs.
FROM ${PYTHON_IMAGE} AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY locks/dev.txt locks/dev.txt
# The locked build backend alone, with its hash.
RUN awk '/^flit-core==/ { found = 1 } found { print } found && !/\\$/ { exit }' locks/dev.txt > backend.txt \
    && pip install --require-hashes --requirement backend.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .


FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1
RUN python -m venv /opt/venv \
    && useradd --create-home --uid 1000 classifier \
    && mkdir /work && chmod a+rwx /work
WORKDIR /work


FROM base AS predict
COPY locks/runtime.txt /tmp/lock.txt
RUN pip install --compile --require-hashes --requirement /tmp/lock.txt && rm /tmp/lock.txt
COPY --from=wheel /wheels /wheels
RUN pip install --compile --no-deps /wheels/*.whl
USER 1000
ENTRYPOINT ["classifier"]


FROM base AS train
# Dependencies first: a change of the source costs only the last layers.
COPY locks/train.txt /tmp/lock.txt
RUN pip install --compile --require-hashes --requirement /tmp/lock.txt && rm /tmp/lock.txt
# Pretrained weights in the image, for machines without a way out: --build-arg WEIGHTS="resnet18 resnet50"
# Whoever runs it, also as another user, may download others there.
ARG WEIGHTS=""
ENV TORCH_HOME=/opt/torch
RUN mkdir -p "$TORCH_HOME" && for name in $WEIGHTS; do \
        python -c "import sys, torchvision.models as m; m.get_model_weights(sys.argv[1]).DEFAULT.get_state_dict(check_hash=True, weights_only=True)" "$name" || exit 1; \
    done && chmod -R a+rwX "$TORCH_HOME"
COPY --from=wheel /wheels /wheels
RUN pip install --compile --no-deps /wheels/*.whl
# The launcher of object-detection-training calls `pixi run task_manager ...`.
COPY --chmod=755 cloud/pixi /usr/local/bin/pixi
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
ENTRYPOINT ["task_manager"]
