"""The folder below `DATA_DIR` that the embedded PostgreSQL lives in, and the locks that its users share.

Locks are flock(2): the kernel releases them when a process ends, however it ends, so a killed process cannot
wedge the others. They also hold between containers that share the folder, where process ids mean nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from metafield_sync.db.embedded.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Generator

    from metafield_sync.db.embedded.account import Account

POLL_S = 0.02
LOG_BYTES_MAX = 1_000_000
LOG_TAIL_LINES_MAX = 8
LOG_TAIL_BYTES_MAX = 4_096

SOCKET_PATH_BYTES_MAX = 103
"""What sockaddr_un holds on macOS; Linux holds 107."""

_SOCKET_FILE = "/.s.PGSQL.5432"
_SOCKET_PREFIX = "metafield-sync-"
_PID_FILE_SOCKET_LINE = 4  # counted from 0; src/include/utils/pidfile.h of PostgreSQL


class Folder:
    """The paths in use, and the small acts upon them. The folder and all in it are ours to create."""

    def __init__(self, data_dir: Path) -> None:
        # Two spellings of one folder must be one folder.
        self.root = data_dir.expanduser().resolve() / "postgresql"
        self.data = self.root / "data"
        self.log = self.root / "server.log"
        self.start_lock = self.root / "start.lock"
        """Held while a server is started, adopted or stopped."""
        self.users_lock = self.root / "users.lock"
        """Shared by every process that uses the server."""
        self.server_lock = self.root / "server.lock"
        """Handed to initdb and to the server when they start, and inherited by every process of theirs: free
        means that none of them is alive."""

    def create(self) -> None:
        """Make the folder, or recognise the one that is there.

        Raises:
            EmbeddedPostgresError: another user made it.
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # Below a root's folder another account runs the server and has to pass; what it may read is its
            # own.
            self.root.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
        owner = self.root.stat().st_uid
        if owner != os.geteuid():
            raise EmbeddedPostgresError(
                f"{self.root} belongs to uid {owner}, and we are uid {os.geteuid()}. Run as that user, "
                "choose another DATA_DIR, or set DATABASE_URL."
            )

    def major(self) -> int | None:
        """Return the major version that wrote the data, or None when there is none yet."""
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None

    def clean(self) -> None:
        """Remove what a killed start or server left; only while the server's lock is ours."""
        for leftover in self.root.glob("data.new-*"):
            shutil.rmtree(leftover)
        if (socket_dir := self.socket_dir()) is not None:
            self.remove_socket_dir(socket_dir)
        # PostgreSQL itself would trust a pid in here as soon as any process has it by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def pid(self) -> int | None:
        """Return the id of the running postmaster, having made sure that it is one, on this data."""
        lines = self._pid_file()
        if not lines or not lines[0].isdecimal():
            return None
        pid = int(lines[0])
        return pid if _is_postmaster(pid, self.data) else None

    def socket_dir(self) -> Path | None:
        """Return the folder of the server's socket, as the server itself has noted it."""
        lines = self._pid_file()
        if len(lines) <= _PID_FILE_SOCKET_LINE or not lines[_PID_FILE_SOCKET_LINE]:
            return None
        return Path(lines[_PID_FILE_SOCKET_LINE])

    def make_socket_dir(self, account: Account) -> Path:
        """Make a folder of mode 700 for the socket.

        It is made here, so that whoever sees `DATA_DIR` finds it; else in /tmp, as a path may be too long
        for a socket, or hold a comma or the like, which libpq and PostgreSQL take for a list.
        """
        path = self.root / "socket"
        fits = len(os.fsencode(path)) + len(_SOCKET_FILE) <= SOCKET_PATH_BYTES_MAX
        if fits and re.fullmatch(r"[A-Za-z0-9/._+-]+", str(path)):
            self.remove_socket_dir(path)
            path.mkdir(mode=0o700)
        else:
            # Not gettempdir(): TMPDIR may be as long as DATA_DIR.
            path = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir="/tmp"))
        account.own(path)
        return path

    def remove_socket_dir(self, path: Path) -> None:
        """Remove a folder made by `make_socket_dir`, and no other, whatever a damaged pid file may say."""
        if path == self.root / "socket" or path.name.startswith(_SOCKET_PREFIX):
            for name in path.glob(".s.PGSQL.*"):
                name.unlink(missing_ok=True)
            with suppress(OSError):
                path.rmdir()

    def open_log(self) -> int:
        """Open the server's log for appending; what has grown too large is kept once, as `server.log.1`."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_BYTES_MAX:
                self.log.replace(self.log.with_suffix(".log.1"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def log_tail(self) -> str:
        """Return the last lines of the server's log as one line."""
        try:
            return tail(self.log.read_bytes()[-LOG_TAIL_BYTES_MAX:].decode(errors="replace"))
        except OSError as error:
            return str(error)

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []


def tail(text: str) -> str:
    """Return the last lines of a program's output as one line, for an error's detail."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-LOG_TAIL_LINES_MAX:])


def try_lock(path: Path) -> int | None:
    """Take a lock file for ourselves alone and return its descriptor, or None while another holds it."""
    return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def share_lock(path: Path) -> int:
    """Join the holders of a lock file, which nobody may be holding alone, and return its descriptor."""
    if (descriptor := _lock(path, fcntl.LOCK_SH | fcntl.LOCK_NB)) is None:
        raise EmbeddedPostgresError(f"{path} is held by another program. End it, or choose another DATA_DIR.")
    return descriptor


@contextmanager
def locked(path: Path, *, timeout_s: float) -> Generator[None]:
    """Hold a lock file alone, waiting for it up to `timeout_s`.

    Raises:
        EmbeddedPostgresError: it stayed taken.
    """
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"Another process has been starting or stopping the embedded PostgreSQL for {timeout_s} s "
                f"or longer ({path} is held). End it and try again."
            )
        time.sleep(POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)


def give_tree(root: Path, account: Account) -> None:
    """Give a whole tree that we had made to an account, the root last; links are not followed."""
    if account.uid is None:
        return
    for _, folders, files, descriptor in os.fwalk(root, topdown=False):
        for name in (*folders, *files):
            os.chown(name, account.uid, account.uid, dir_fd=descriptor, follow_symlinks=False)
        os.fchown(descriptor, account.uid, account.uid)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path, operation: int) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_postmaster(pid: int, data: Path) -> bool:
    """Tell whether a process is a server on `data`, and not one that has got the id of a dead one."""
    process = Path("/proc", str(pid))
    if not Path("/proc/self/cmdline").exists():  # macOS
        shown = subprocess.run(  # noqa: S603 - a fixed program and a number
            ["/bin/ps", "-o", "command=", "-p", str(pid)], check=False, capture_output=True, text=True
        )
        return "postgres" in shown.stdout and str(data) in shown.stdout
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
        if Path(os.fsdecode(arguments[0])).name not in {"postgres", "postmaster"}:
            return False
        # Started by hand it may have been given the folder in other words, but it always works inside of it.
        return os.fsencode(data) in arguments or (process / "cwd").samefile(data)
    except OSError:
        return False
