"""The files of bulk operations: staged and uploaded before, downloaded after. They are not Shopify's to keep.

They go to and come from a storage provider's host, at addresses that are secrets themselves: signed, for anybody who
has them. So the access token is not sent there, no redirect is followed, and no error text holds more than the host.
Files are passed through in pieces, whatever their size; a result may have hundreds of megabytes.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import httpx

from metafield_sync.shopify.bulk import URL_CHARS_MAX, refused
from metafield_sync.shopify.client import CONNECT_TIMEOUT_S, USER_AGENT
from metafield_sync.shopify.failures import OutcomeUnknown, ShopifyError
from metafield_sync.shopify.shapes import items, mapping, verbatim

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from metafield_sync.shopify.client import AdminClient, ShopAccess
    from metafield_sync.shopify.cost import Cost

STAGE_UPLOAD_COST = 11
"""Points of one `stage_upload`, as recorded."""
FILE_READ_TIMEOUT_S = 60.0
"""For the next bytes of a file, either way."""
FILE_TIMEOUT_S = 900.0
"""For a whole file: all the time spent waiting for the other side."""
LINE_BYTES_MAX = 1024 * 1024
"""A line of a result is some hundred bytes; one of this size is no line of ours."""
FILE_MIME_TYPE = "text/jsonl"
ERROR_BYTES_MAX = 4096
"""How much of an error's body is looked at for its code."""
PARAMETER_CHARS_MAX = 65_535

_UPLOADED = frozenset({200, 201, 204})
"""201 is what the parameters ask for; stores other than the one in use answer with the others."""
_OK = 200
_GONE = frozenset({403, 404, 410})
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
"""In the XML that storage providers answer with. The rest of it may repeat what was signed."""

STAGE_UPLOAD_MUTATION = """
mutation StageUpload($input: [StagedUploadInput!]!) {
  stagedUploadsCreate(input: $input) {
    stagedTargets {
      url
      parameters {
        name
        value
      }
    }
    userErrors {
      field
      message
    }
  }
}
"""


class UploadFailed(ShopifyError):
    """A file did not arrive where it was staged. Stage it anew and upload it again."""

    code: ClassVar[str] = "bulk_upload_failed"


class DownloadFailed(ShopifyError):
    """A result could not be read to its end; what was read of it is true, and what is missing unknown.

    `expired` tells that it is not to be had at this address any more: look at the operation again for a new one.
    """

    code: ClassVar[str] = "bulk_download_failed"

    def __init__(self, detail: str, *, expired: bool = False) -> None:
        super().__init__(detail)
        self.expired = expired


@dataclass(frozen=True, slots=True)
class StagedTarget:
    """Where to upload one file to, within 24 hours, and the form fields that permit it, in their order.

    Raises ValueError if no field, or more than one, is named `key`.
    """

    url: str = field(repr=False)
    parameters: tuple[tuple[str, str], ...] = field(repr=False)

    def __post_init__(self) -> None:
        if [name for name, _ in self.parameters].count("key") != 1:
            raise ValueError("one parameter of a staged upload is its key")

    @property
    def path(self) -> str:
        """What `run_bulk_mutation` calls the staged path: the field named `key`, wherever it stands."""
        return next(value for name, value in self.parameters if name == "key")


async def stage_upload(client: AdminClient, access: ShopAccess, filename: str) -> tuple[StagedTarget, Cost | None]:
    """Have Shopify prepare a place for one file of variables, and return it with what asking cost.

    Raises BulkRefused, the failures of `AdminClient.call`, and OutcomeUnknown when the answer names no such place.
    """
    staged = {
        "resource": "BULK_MUTATION_VARIABLES",
        "filename": filename,
        "mimeType": FILE_MIME_TYPE,
        "httpMethod": "POST",
    }
    answer = await client.call(access, STAGE_UPLOAD_MUTATION, {"input": [staged]})
    payload = mapping(answer.data.get("stagedUploadsCreate")) or {}
    errors = items(payload.get("userErrors"))
    if errors:
        raise refused(access, "stagedUploadsCreate", errors, answer.cost)
    target = _target(items(payload.get("stagedTargets")) or [])
    if target is None:
        raise OutcomeUnknown(
            f"{access.domain}: Shopify's answer to stagedUploadsCreate cannot be read.", cost=answer.cost
        )
    return target, answer.cost


async def upload(client: AdminClient, target: StagedTarget, file: Path) -> None:
    """Upload the file, not read whole at any time, to where it was staged.

    Raises UploadFailed for whatever keeps it from being there, and OSError if it cannot be read here.
    """
    url = _safe_address(client, target.url)
    if isinstance(url, str):
        raise UploadFailed(f"The file is not uploaded: {url}.")
    async with await anyio.open_file(file, "rb") as content:
        # The fields come before the file, as they have to: what follows it is ignored.
        request = client.http.build_request(
            "POST",
            url,
            data=dict(target.parameters),
            files={"file": (file.name, content.wrapped, FILE_MIME_TYPE)},
            headers={"User-Agent": USER_AGENT},
            timeout=_timeout(),
        )
        try:
            async with asyncio.timeout(FILE_TIMEOUT_S):
                response = await client.http.send(request, stream=True, follow_redirects=False)
                try:
                    said = await _error_code(response) if response.status_code not in _UPLOADED else None
                finally:
                    await response.aclose()
        except (httpx.HTTPError, TimeoutError) as error:
            raise UploadFailed(
                f"The file could not be uploaded to {url.host} ({type(error).__name__}). It is staged anew and "
                "tried again."
            ) from error
    if response.status_code not in _UPLOADED:
        raise UploadFailed(
            f"The file was not accepted by {url.host} (HTTP {response.status_code}{_quoted(said)}). It is staged "
            "anew and tried again."
        )


async def download_lines(client: AdminClient, url: str) -> AsyncGenerator[bytes]:
    """Read a result line by line as it arrives, never holding more than a line; empty lines are left out.

    Raises DownloadFailed, also between lines, when the rest does not come. Leave it before its end only through
    `contextlib.aclosing`, which gives the connection back at once.
    """
    address = _safe_address(client, url)
    if isinstance(address, str):
        raise DownloadFailed(f"The result is not downloaded: {address}.")
    rest = b""
    async with aclosing(_download(client, address)) as chunks:
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            if max(map(len, [*lines, rest])) > LINE_BYTES_MAX:
                raise DownloadFailed(
                    f"The result from {address.host} holds a line of more than {LINE_BYTES_MAX} bytes."
                )
            for line in lines:
                if line:
                    yield line
    if rest:
        yield rest


async def _download(client: AdminClient, address: httpx.URL) -> AsyncGenerator[bytes]:
    """GET a file in the pieces it arrives in."""
    request = client.http.build_request(
        "GET",
        address,
        # Compressed pieces would have no bound on what they unfold to.
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        timeout=_timeout(),
    )
    try:
        async with asyncio.timeout(FILE_READ_TIMEOUT_S):
            response = await client.http.send(request, stream=True, follow_redirects=False)
    except (httpx.HTTPError, TimeoutError) as error:
        raise _cut(address, error) from error
    try:
        if response.status_code != _OK:
            said = await _error_code(response)
            raise DownloadFailed(
                f"The result could not be had from {address.host} (HTTP {response.status_code}{_quoted(said)}).",
                expired=response.status_code in _GONE or said == "ExpiredToken",
            )
        if not {"content-length", "transfer-encoding"} & response.headers.keys():
            # Such a body ends with its connection, and nobody could tell an end from a cut.
            raise DownloadFailed(f"The result from {address.host} does not say where it ends.")
        chunks = response.aiter_bytes()
        waited_s = 0.0
        while True:
            began_s = time.monotonic()
            try:
                chunk = await anext(chunks, None)
            except httpx.HTTPError as error:
                raise _cut(address, error) from error
            if chunk is None:
                return
            # Only the other side's time counts: whoever takes the lines may need longer for them than they for us.
            waited_s += time.monotonic() - began_s
            if waited_s > FILE_TIMEOUT_S:
                raise DownloadFailed(f"The result from {address.host} comes too slowly.")
            yield chunk
    finally:
        await response.aclose()


def _cut(address: httpx.URL, error: Exception) -> DownloadFailed:
    return DownloadFailed(f"The result from {address.host} broke off ({type(error).__name__}).")


def _safe_address(client: AdminClient, url: str) -> httpx.URL | str:
    """The address, or why it is not one to talk to."""
    try:
        return client.file_url(url)
    except ValueError as error:
        return str(error)


async def _error_code(response: httpx.Response) -> str | None:
    """Find the code in an error's XML, such as `ExpiredToken`; None if it has none, or cannot be read."""
    body = b""
    try:
        async with asyncio.timeout(FILE_READ_TIMEOUT_S):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) >= ERROR_BYTES_MAX:
                    break
    except (httpx.HTTPError, TimeoutError):
        pass  # the status says enough
    found = _ERROR_CODE.search(body[:ERROR_BYTES_MAX])
    return found[1].decode() if found else None


def _quoted(said: str | None) -> str:
    return "" if said is None else f": {said}"


def _timeout() -> httpx.Timeout:
    return httpx.Timeout(FILE_READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=CONNECT_TIMEOUT_S)


def _target(targets: list[Any]) -> StagedTarget | None:
    told = mapping(targets[0]) or {} if targets else {}
    url = verbatim(told.get("url"), chars_max=URL_CHARS_MAX)
    parameters: list[tuple[str, str]] = []
    for parameter in items(told.get("parameters")) or []:
        described = mapping(parameter) or {}
        name = verbatim(described.get("name"), chars_max=PARAMETER_CHARS_MAX)
        value = verbatim(described.get("value"), chars_max=PARAMETER_CHARS_MAX)
        if name is None or value is None:
            return None
        parameters.append((name, value))
    try:
        return None if url is None else StagedTarget(url, tuple(parameters))
    except ValueError:
        return None
