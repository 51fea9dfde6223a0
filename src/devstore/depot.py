"""The storage beside the API, in reality Google's: uploaded files, and the results of bulk operations.

Files are in a temporary directory that is made when the first is written and removed with its contents by `close`.
What they are is kept in memory only: a server that starts anew has none of them, even with a state file.
"""

import asyncio
import hashlib
import secrets
import tempfile
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

from devstore.staging import RefusedByStorageError, Target, check_signature, draw_signature, expired

RESULTS_PATH = "/_bulk/"
RESULT_VALID_S = 7 * 24 * 60 * 60

_NAME_BYTES = 14


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that arrived: where it is here, and how many bytes it had."""

    path: Path
    size: int


class Incoming:
    """A file while it arrives. What goes beyond `limit` bytes is counted and not kept."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb")
        self._limit = limit
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece."""
        self.size += len(data)
        if self.size <= self._limit:
            self._file.write(data)
            self._md5.update(data)

    @property
    def etag(self) -> str:
        """The MD5 of what was kept, in hex."""
        return self._md5.hexdigest()

    def finish(self) -> Upload:
        """Close it, and say what arrived."""
        self._file.close()
        return Upload(self._path, self.size)

    def discard(self) -> None:
        """Close it and throw it away."""
        self._file.close()
        self._path.unlink(missing_ok=True)


@dataclass(slots=True)
class Result:
    """A result that may be downloaded from `url`, by whoever has it, until `expires_s` (seconds since 1970)."""

    shop: str
    path: Path
    filename: str
    url: str = field(repr=False)
    signature: str = field(repr=False)
    expires_s: int


class Depot:
    """Everything in the storage, of all shops of one server.

    Args:
        origin: of the server, for the addresses of its files: `http://127.0.0.1:PORT`.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        # Bulk operations, which read and write these files, take turns: see `Bulk`.
        self.turn = asyncio.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0
        self._targets: dict[str, Target] = {}
        self._uploads: dict[str, Upload] = {}
        self._results: dict[str, Result] = {}

    def add_target(self, target: Target) -> None:
        """Remember a place that was prepared."""
        self._targets[target.key] = target

    def target(self, key: str | None) -> Target:
        """The place of this name. Raises RefusedByStorageError if nobody prepared it."""
        target = self._targets.get(key or "")
        if target is None:
            message = "Access denied. No policy was signed for this key."
            raise RefusedByStorageError(HTTPStatus.FORBIDDEN, "AccessDenied", message)
        return target

    def receive(self, limit: int) -> Incoming:
        """Begin to receive a file, keeping at most `limit` bytes of it."""
        return Incoming(self.new_path(), limit)

    def keep(self, target: Target, upload: Upload) -> None:
        """Put a file in its place; one that was there before is replaced."""
        self._uploads[target.key] = upload

    def upload(self, shop: str, key: str) -> Upload | None:
        """The file a shop has in this place, if any arrived."""
        target = self._targets.get(key)
        return self._uploads.get(key) if target is not None and target.shop == shop else None

    def add_result(self, shop: str, path: Path, filename: str, now_s: int) -> Result:
        """Offer a file for download, at an address nobody can guess."""
        name, signature, expires_s = secrets.token_hex(_NAME_BYTES), draw_signature(), now_s + RESULT_VALID_S
        url = f"{self.origin}{RESULTS_PATH}{name}.jsonl?{urlencode({'Expires': expires_s, 'Signature': signature})}"
        result = Result(shop, path, filename, url, signature, expires_s)
        self._results[f"{name}.jsonl"] = result
        return result

    def result(self, name: str) -> Result | None:
        """The result of this name, whoever asks."""
        return self._results.get(name)

    def new_path(self) -> Path:
        """Where a new file may be written."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="devstore-")
        self._files += 1
        return Path(self._folder.name) / str(self._files)

    def close(self) -> None:
        """Remove every file."""
        if self._folder is not None:
            self._folder.cleanup()


def check_download(result: Result | None, signature: str | None, now_s: int) -> Result:
    """Whether somebody with this signature may have the result now. Raises RefusedByStorageError."""
    if result is None:
        raise RefusedByStorageError(HTTPStatus.NOT_FOUND, "NoSuchKey", "The specified key does not exist.")
    check_signature(signature, result.signature)
    if now_s >= result.expires_s:
        raise expired()
    return result
