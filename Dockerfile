# The service. docs/images.md says how to run it; Dockerfile.notebook builds the notebook image.
# Any base with python3 and its venv works; both stages need the same one.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements/build.txt requirements/service.txt requirements/
# Binary wheels only: nothing is compiled, so this stage needs no compiler either.
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: \
        --requirement requirements/build.txt \
    && python3 -m venv --without-pip /opt/nbexchange \
    && /opt/build/bin/pip --python /opt/nbexchange/bin/python install --no-compile \
        --require-hashes --only-binary :all: --requirement requirements/service.txt
COPY pyproject.toml README.md LICENSE ./
COPY docs/openapi.yaml docs/
COPY alembic alembic
COPY nbexchange nbexchange
# Bytecode is compiled here, because /opt is read-only later. It contains no times, so that the same
# sources give the same files.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/nbexchange/bin/python install --no-compile --no-deps \
        /wheels/*.whl \
    && /opt/nbexchange/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/nbexchange/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="nbexchange" \
      org.opencontainers.image.description="An exchange for nbgrader as a service" \
      org.opencontainers.image.licenses="BSD-3-Clause"
COPY --from=packages /opt/nbexchange /opt/nbexchange
# A new volume takes its owner and mode from this folder.
RUN install --directory --owner=1000 --group=1000 --mode=0700 /srv/nbexchange
ENV PATH=/opt/nbexchange/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NBEXCHANGE_DATA=/srv/nbexchange
VOLUME /srv/nbexchange
WORKDIR /srv/nbexchange
# A number, so that Kubernetes can check that it is not root.
USER 1000:1000
EXPOSE 9000
# Uploads in flight get their answer before the stop: allow 30 seconds (`docker stop --time 30`).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 9000, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["nbexchange"]
