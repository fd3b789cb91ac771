# The container image of vemseg. BuildKit or buildah builds it; images and packages come from where yours come from.
#
#   docker build -t vemseg:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED="$(date -u +%FT%TZ)" .
#
# PyTorch's own wheels bring CUDA, so a slim Python is base enough. For a smaller image without it, or another CUDA:
#   --build-arg TORCH_INDEX=URL                        index of torch and torchvision, such as PyTorch's for CPUs
#   --build-arg TORCH="torch==2.14.* torchvision"      where that index has not the versions of requirements.lock
#
# A release takes its base by digest (docker buildx imagetools inspect python:3.11-slim-bookworm shows it):
#   --build-arg RELEASE=1 --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS package
ARG PYTHON_IMAGE
ARG RELEASE=
RUN case "${RELEASE}:${PYTHON_IMAGE}" in \
        :* | *@sha256:*) ;; \
        *) echo "a release is built from a base by digest, not from ${PYTHON_IMAGE}: see the head of the Dockerfile" >&2; exit 1 ;; \
    esac
WORKDIR /source
COPY requirements.lock ./
RUN grep -E '^torch(vision)?==' requirements.lock > torch.txt \
    && grep -vE '^torch(vision)?==' requirements.lock > others.txt
COPY . .
RUN python3 -m venv /build \
    && /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON_IMAGE}
ARG TORCH_INDEX=
ARG TORCH=

# pip belongs to the base, not to the image's environment; layers from what changes least to what changes most
RUN python3 -m compileall -q -x 'test|lib2to3' "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && python3 -m venv --without-pip /opt/vemseg
RUN --mount=type=bind,from=package,source=/source/torch.txt,target=/lock/torch.txt \
    --mount=type=bind,from=package,source=/source/others.txt,target=/lock/others.txt \
    set -f -- ${TORCH:---requirement /lock/torch.txt} \
    && install="python3 -m pip --python /opt/vemseg/bin/python install --no-cache-dir" \
    && if [ -n "${TORCH_INDEX}" ]; then ${install} --no-deps --index-url "${TORCH_INDEX}" "$@"; fi \
    && ${install} --constraint /lock/others.txt "$@"
RUN --mount=type=bind,from=package,source=/source/others.txt,target=/lock/others.txt \
    python3 -m pip --python /opt/vemseg/bin/python install --no-cache-dir --requirement /lock/others.txt
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    python3 -m pip --python /opt/vemseg/bin/python install --no-cache-dir --no-deps /wheels/*.whl \
    && python3 -m pip --python /opt/vemseg/bin/python check

ENV PATH=/opt/vemseg/bin:$PATH \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLBACKEND=Agg \
    MPLCONFIGDIR=/tmp/vemseg-cache/matplotlib \
    XDG_CACHE_HOME=/tmp/vemseg-cache \
    NUMBA_CACHE_DIR=/tmp/vemseg-cache/numba \
    TORCHINDUCTOR_CACHE_DIR=/tmp/vemseg-cache/inductor \
    TRITON_CACHE_DIR=/tmp/vemseg-cache/triton \
    VEMSEG_CACHE_DIR=/tmp/vemseg-cache/vemseg \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
ARG SOURCE=
# what results made with the image say of it
ENV VEMSEG_IMAGE="vemseg:${VERSION} ${REVISION}"
LABEL org.opencontainers.image.title="vemseg" \
      org.opencontainers.image.description="Self-supervised segmentation of organelles in volume electron microscopy" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

RUN test "$(vemseg --version)" = "vemseg ${VERSION}"
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["vemseg"]
CMD ["--help"]
