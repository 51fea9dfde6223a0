"""The demo's own folder below DATA_DIR: its database, its key, and the lock that keeps a second demo out."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet

from metafield_sync.cli.parts import WRONG
from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

PRIVATE = 0o600


class DemoBusy(AppError):
    """Another demo runs in the same folder."""

    code = "demo_busy"
    exit_status = WRONG


class DemoFolderUnusable(AppError):
    """The folder cannot be written to."""

    code = "demo_folder_unusable"
    exit_status = WRONG


class DemoFolder:
    """`DATA_DIR/demo`, which holds nothing but what a demo made and the next one replaces."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir.expanduser().absolute() / "demo"
        self.devstore_log = self.root / "devstore.log"
        self.environment_file = self.root / "environment"
        self._lock = self.root / "demo.lock"
        self._key = self.root / "encryption.key"

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep other demos out of the folder until the block ends, or this process does, however it ends.

        Raises:
            DemoBusy: one is at work in it.
            DemoFolderUnusable: it cannot be made or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, PRIVATE)
        except OSError as error:
            raise DemoFolderUnusable(
                f"{self.root}: {error.strerror}. Set DATA_DIR to a folder that can be written to."
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DemoBusy(
                f"Another demo is running in {self.root}. Stop it, or give this one its own folder with DATA_DIR."
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)

    def encryption_key(self) -> str:
        """The demo's own key for tokens at rest, made when there is none."""
        try:
            key = self._key.read_text(encoding="ascii").strip()
            Fernet(key)
        except (OSError, ValueError):
            # None yet, or half of one after a kill: nothing that it sealed outlives a demo.
            key = Fernet.generate_key().decode()
            self._write(self._key, f"{key}\n")
        return key

    def write_environment(self, values: Mapping[str, str]) -> None:
        """Leave the demo's settings in a file that a shell can read, so that the command line works on the demo."""
        quoted = "".join("{}='{}'\n".format(name, value.replace("'", "'\\''")) for name, value in values.items())
        self._write(self.environment_file, quoted)

    def _write(self, path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
