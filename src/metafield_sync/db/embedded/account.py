"""Which account PostgreSQL's programs run as.

PostgreSQL refuses to run as root, and is right to. When we are root we hand it an account of its own, and if
that account cannot reach the program or the data (a clone below `mktemp -d`, a home of mode 700) one single
capability to pass through. The folders in between stay as they are: opening them to the world would be the
other way.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from metafield_sync.db.embedded.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SERVER_UID = 65527
"""The uid (and gid) of the server when we are root. Debian's policy reserves 65000 to 65533 and systemd hands
out none of 65520 to 65533, so that no daemon shares it, as they share `nobody`; below 65536, so that
containers map it."""

PROBE_TIMEOUT_S = 15

# Nothing of ours may steer the server: PGDATA, PGPORT, LC_ALL and so on stay behind.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class Account:
    """A way to run a program: as `uid` with one capability or none, or as ourselves (`uid` None)."""

    uid: int | None = None
    capability: str | None = None
    for_access: bool = False
    """Whether access(2) counts the capability too, as PostgreSQL needs where its own programs lie below a
    closed folder. Without the securebit no_setuid_fixup access(2) asks on behalf of a uid without any
    capability."""

    def own(self, path: Path) -> None:
        """Give `path`, which we have just created, to this account."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)

    def as_nobody(self) -> Account:
        """Return the same way in for `initdb`, which insists on a uid that has a name.

        Raises:
            EmbeddedPostgresError: nobody is called nobody.
        """
        if self.uid is None:
            return self
        try:
            return replace(self, uid=pwd.getpwnam("nobody").pw_uid)
        except KeyError as error:
            raise EmbeddedPostgresError(
                "PostgreSQL does not run as root, and there is no user nobody to create the database as. Run "
                "as a normal user, or set DATABASE_URL."
            ) from error

    def run(
        self,
        command: Sequence[str | Path],
        *,
        timeout_s: float,
        output: IO[bytes] | int = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, in a session of its own: Ctrl-C in our terminal is not meant for it.

        Raises:
            OSError: it could not be started as this account.
            subprocess.TimeoutExpired: it took longer than `timeout_s` and was killed.
        """
        switch = self.uid if self.capability is None else None
        return subprocess.run(  # noqa: S603 - PostgreSQL's own programs, and no shell reads the arguments
            [*self._prefix(), *map(str, command)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd="/",
            env=ENVIRONMENT,
            timeout=timeout_s,
            start_new_session=True,
            pass_fds=pass_fds,
            user=switch,
            group=switch,
            extra_groups=None if switch is None else [],
        )

    def _prefix(self) -> list[str]:
        """Have util-linux's setpriv change the uid when a capability must survive the change."""
        if self.capability is None:
            return []
        return [
            shutil.which("setpriv") or "setpriv",
            f"--reuid={self.uid}",
            f"--regid={self.uid}",
            "--clear-groups",
            f"--inh-caps=+{self.capability}",
            f"--ambient-caps=+{self.capability}",
            *(["--securebits=+no_setuid_fixup"] if self.for_access else []),
            "--no-new-privs",
            "--",
        ]


# Least privilege first; each is tried until one works. A container that follows Docker's defaults has no
# dac_read_search (read and pass through any folder) to give, only dac_override (write as well), which also
# runs programs that a umask of 077 left executable by root alone. Setting a securebit takes one right more.
ROOT_ACCOUNTS = (
    Account(SERVER_UID),
    Account(SERVER_UID, "dac_read_search"),
    Account(SERVER_UID, "dac_read_search", for_access=True),
    Account(SERVER_UID, "dac_override"),
    Account(SERVER_UID, "dac_override", for_access=True),
)


def find_account(folder: Path, postgres: Path) -> tuple[Account, int]:
    """Return the least privileged account that can enter `folder` and run `postgres`, and its major version.

    It is found by trying: no reading of mode bits knows all that access lists, containers and mounts decide.

    Raises:
        EmbeddedPostgresError: none can.
    """
    reasons: list[str] = []
    for account in ROOT_ACCOUNTS if os.geteuid() == 0 else (Account(),):
        command = ("/bin/sh", "-c", 'cd "$1" && exec "$2" -V', "sh", folder, postgres)
        try:
            result = account.run(command, timeout_s=PROBE_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(getattr(error, "strerror", None) or str(error))
            continue
        # From the first letter on: a program that cannot find itself says so before its version.
        if found := re.match(r"postgres \(PostgreSQL\) (\d+)", result.stdout):
            return account, int(found[1])
        reasons.append(result.stdout.strip() or f"{postgres} exited with {result.returncode}")
    if os.geteuid() != 0:
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL does not run here ({reasons[-1]}). Set DATABASE_URL to one that does."
        )
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and no other account can be used here "
        f"({'; '.join(dict.fromkeys(reasons))}). Run as a normal user, or set DATABASE_URL."
    )
