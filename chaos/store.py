"""The devstore, a process of its own: arranged, damaged and looked at over its control API."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import httpx

from chaos.plan import Delete, Erase, Overwrite
from chaos.processes import ChaosFailed, Leash, Program
from chaos.shops import DOMAINS, customers_of, shop_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chaos.faults import FaultRule
    from chaos.plan import Foreign

TOKEN = "shpat_chaos_of_a_local_devstore"  # noqa: S105 - opens the devstore of this run, and nothing else
NAMESPACE, KEY = "loyalty", "points_balance"
PLAN = "advanced"
CALL_TIMEOUT_S = 30
READY_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class ForeignAct:
    """Something that somebody else did to a customer's metafield, with the time before and after, since 1970.

    `value`: what the metafield showed then; None: it was gone.
    """

    customer: int
    kind: Literal["overwrite", "erase", "delete"]
    value: str | None
    began_s: float
    ended_s: float


class Store:
    """A running devstore with all shops."""

    def __init__(self, program: Program, http: httpx.AsyncClient) -> None:
        self._program = program
        self._http = http
        self.origin = ""
        self.rules: dict[int, FaultRule] = {}
        self.struck: dict[str, int] = {}
        self.acts: list[ForeignAct] = []

    async def start(self, *, customers: int, seed: int, latency_ms: tuple[int, int]) -> None:
        """Start it, wait until it serves, and create the customers.

        Raises:
            ChaosFailed: it does not.
        """
        self._program.start()
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                line = await asyncio.to_thread(self._program.output.readline)
            self.origin = json.loads(line)["origin"]
        except (ValueError, TimeoutError) as error:
            raise ChaosFailed(f"the devstore does not start: {self._program.tail()}") from error
        for shop, domain in enumerate(DOMAINS):
            await self._call("POST", f"/shops/{domain}/customers", {"ids": customers_of(shop, customers)})
        await self._call("PUT", "/latency", {"minMs": latency_ms[0], "maxMs": latency_ms[1], "seed": seed})

    async def stop(self) -> None:
        """Stop it."""
        await self._program.stop()

    @property
    def admin_origin(self) -> str:
        """For SHOPIFY_ADMIN_ORIGIN."""
        return f"{self.origin}/{{shop}}"

    @property
    def deleted(self) -> set[int]:
        """The customers who are not there any more."""
        return {act.customer for act in self.acts if act.kind == "delete"}

    async def arm(self, rules: Sequence[FaultRule]) -> list[int]:
        """Let calls go wrong from now on; the rules' numbers."""
        numbers = [(await self._call("POST", "/faults", rule.body))["id"] for rule in rules]
        self.rules.update(zip(numbers, rules, strict=True))
        return numbers

    async def has_struck(self, number: int) -> bool:
        """Whether a rule in force has struck."""
        return any(armed["id"] == number and armed["fired"] for armed in await self._call("GET", "/faults"))

    async def disarm(self) -> None:
        """Let nothing go wrong any more, and note how often each rule struck."""
        for armed in await self._call("GET", "/faults"):
            kind = self.rules[armed["id"]].kind
            self.struck[kind] = self.struck.get(kind, 0) + armed["fired"]
        await self._call("DELETE", "/faults")

    async def do(self, act: Foreign) -> ForeignAct:
        """Do to a metafield what somebody else would. `act` is one of the plan's."""
        shop = f"/shops/{DOMAINS[shop_of(act.customer)]}"
        where = {"customerId": str(act.customer), "namespace": NAMESPACE, "key": KEY}
        began_s, value = time.time(), None
        kind: Literal["overwrite", "erase", "delete"]
        match act:
            case Overwrite():
                kind, value = "overwrite", act.value
                body = {**where, "value": act.value, "type": act.type}
                await self._call("PUT", f"{shop}/metafields", body)
            case Erase():
                kind = "erase"
                await self._call("DELETE", f"{shop}/metafields", where)
            case Delete():
                kind = "delete"
                await self._call("DELETE", f"{shop}/customers", {"ids": [str(act.customer)]})
        done = ForeignAct(act.customer, kind, value, began_s, time.time())
        self.acts.append(done)
        return done

    async def spend(self, shop: int, points: int) -> None:
        """Spend points of a shop's bucket as another program of the app would."""
        await self._call("POST", f"/shops/{DOMAINS[shop]}/bucket/spend", {"points": points})

    async def shown(self) -> dict[int, str]:
        """Every customer's metafield."""
        shown: dict[int, str] = {}
        for domain in DOMAINS:
            found = await self._call("GET", f"/shops/{domain}/metafields?namespace={NAMESPACE}&key={KEY}")
            shown |= {int(customer): value for customer, value in found.items()}
        return shown

    async def unfinished(self) -> int:
        """Calls under way, and calls that are still to be executed after their client went."""
        health = await self._call("GET", "/health")
        return health["inFlight"] + len(await self._call("GET", "/late"))

    async def calls(self) -> list[dict[str, Any]]:
        """Every call of the Admin API."""
        return await self._call("GET", "/calls")

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = await self._http.request(method, f"{self.origin}/_devstore{path}", json=body, timeout=CALL_TIMEOUT_S)
        if answer.is_error:
            raise ChaosFailed(f"the devstore refused {method} {path}: {answer.text[:500]}")
        return answer.json()


def store_program(folder: Path, leash: Leash, environment: Mapping[str, str]) -> Program:
    """The devstore, not yet started."""
    shops = [word for domain in DOMAINS for word in ("--shop", f"{domain}:{TOKEN}")]
    return Program(
        "devstore",
        [*shops, "--plan", PLAN],
        log=folder / "devstore.log",
        environment=environment,
        leash=leash,
        reads_output=True,
    )
