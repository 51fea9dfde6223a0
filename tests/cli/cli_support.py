"""The command line as a test sees it: in this process, or as a program of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx
from cryptography.fernet import Fernet

from metafield_sync.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Protocol

    class Cli(Protocol):
        """Runs one command in this process."""

        def __call__(self, *arguments: str, stdin: str = "", **changes: str) -> Result: ...


DOMAIN = "demo.myshopify.com"
OTHER = "other.myshopify.com"
TOKEN = "shpat_0123456789abcdef"  # noqa: S105 - the devstore's, made up
CUSTOMERS = 30
KEY = Fernet.generate_key().decode()
PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Result:
    """What one command came to."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line on standard error; nothing else may be there, and nothing on standard output."""
        assert self.out == ""
        assert self.err.startswith("metafield-sync: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.strip()


@dataclass(frozen=True, slots=True)
class Store:
    """The devstore, arranged over its control API."""

    origin: str

    @property
    def admin_origin(self) -> str:
        return f"{self.origin}/{{shop}}"

    def control(self, method: str, path: str, body: object = None) -> Any:
        answer = httpx.request(method, f"{self.origin}/_devstore{path}", json=body, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def shown(self, domain: str = DOMAIN) -> dict[str, str]:
        """Every customer's points balance in Shopify."""
        return self.control("GET", f"/shops/{domain}/metafields?namespace=loyalty&key=points_balance")

    def calls(self, operation: str) -> int:
        return len(self.control("GET", f"/calls?operation={operation}"))

    def graphql(self, document: str, domain: str = DOMAIN) -> Any:
        answer = httpx.post(
            f"{self.origin}/{domain}/admin/api/2026-10/graphql.json",
            json={"query": document},
            headers={"X-Shopify-Access-Token": TOKEN},
            trust_env=False,
        )
        answer.raise_for_status()
        return answer.json()


def clean_environment(**values: str) -> dict[str, str]:
    """This process's environment without any setting of ours, then `values`."""
    ours = {name.upper() for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in ours} | values


class Program:
    """`metafield-sync …` as a process of its own, its output collected while it runs."""

    def __init__(self, *arguments: str, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "metafield_sync", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(environment),
        )
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        self._readers = [
            threading.Thread(target=self._lines[name].extend, args=(stream,), daemon=True)
            for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def out(self) -> str:
        return "".join(self._lines["out"])

    @property
    def err(self) -> str:
        return "".join(self._lines["err"])

    def wait_for(self, found: Callable[[], object]) -> None:
        """Until `found` is true of what it printed; fails when it ends before, or takes for ever."""
        deadline = time.monotonic() + PATIENCE_S
        while not found():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.out}{self.err}"
            assert time.monotonic() < deadline, f"it said only: {self.out}{self.err}"
            time.sleep(0.02)

    def stop(self, number: signal.Signals) -> Result:
        self.process.send_signal(number)
        return self.result()

    def result(self) -> Result:
        status = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join()
        return Result(status, self.out, self.err)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.result()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
