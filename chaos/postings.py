"""Postings over the real HTTP API: what has no answer is sent again under the same key until it has one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from chaos.plan import Batch, Entry, Manner, Post
from chaos.shops import shop_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.journal import Journal
    from chaos.model import Model

ANSWER_TIMEOUT_S = 20.0
GIVE_UP_S = 90.0
OTHER_POINTS = 1_000_003
PAUSE_S = (0.1, 3.0)
CREATED, OK, CONFLICT, UNPROCESSABLE, TOO_MANY, SERVER_ERROR, UNAVAILABLE = 201, 200, 409, 422, 429, 500, 503


@dataclass(slots=True)
class Sent:
    """What went over the wire. `repeated`: sent again for want of an answer, or although there was one."""

    requests: int = 0
    unanswered: int = 0
    repeated: int = 0
    conflicts: int = 0
    slowest_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter[str])


class Poster:
    """Posts what the plan says, and tells the model what was acknowledged. `keys`: one a shop."""

    def __init__(
        self, http: httpx.AsyncClient, address: str, keys: Sequence[str], model: Model, journal: Journal
    ) -> None:
        self._http = http
        self._address = address
        self._headers = [{"Authorization": f"Bearer {key}"} for key in keys]
        self._model = model
        self._journal = journal
        self.sent = Sent()

    async def post(self, action: Post) -> None:
        """Post one entry in its manner."""
        entry, shop = action.entry, shop_of(action.entry.customer)
        body = _document(entry)
        if action.manner is Manner.SYNC:
            body["syncToShopify"] = True
        if action.manner is Manner.HANG_UP:
            await self._hang_up("/api/ledger", shop, body, action.patience_ms)
        times = 2 if action.manner is Manner.TWICE_AT_ONCE else 1
        answers = await asyncio.gather(*(self._until_answered("/api/ledger", shop, body) for _ in range(times)))
        self.sent.repeated += times - 1
        for answer in answers:
            self._take_single(entry, answer)
        if action.manner is Manner.AGAIN:
            self.sent.repeated += 1
            self._take_single(entry, await self._until_answered("/api/ledger", shop, body))
        if action.manner is Manner.CONFLICT and self._model.is_accepted(entry):
            await self._contradict(entry)

    async def batch(self, action: Batch) -> None:
        """Post many at once in their manner."""
        body = {"entries": [_document(entry) for entry in action.entries]}
        if action.manner is Manner.HANG_UP:
            await self._hang_up("/api/ledger/batch", action.shop, body, action.patience_ms)
        times = 2 if action.manner is Manner.TWICE_AT_ONCE else 1
        answers = await asyncio.gather(
            *(self._until_answered("/api/ledger/batch", action.shop, body) for _ in range(times))
        )
        if action.manner is Manner.AGAIN:
            answers.append(await self._until_answered("/api/ledger/batch", action.shop, body))
        self.sent.repeated += len(answers) - 1
        for answer in answers:
            await self._take_batch(action.entries, answer)

    async def settle(self) -> None:
        """Post once more what was refused, now that nothing of it can be under way.

        A request that nobody listened to may have been accepted after the one that was refused.
        """
        for entry in self._model.refused_for_good:
            self.sent.repeated += 1
            self._take_single(
                entry, await self._until_answered("/api/ledger", shop_of(entry.customer), _document(entry))
            )

    async def _take_batch(self, entries: Sequence[Entry], answer: httpx.Response | None) -> None:
        if answer is None:
            return
        if answer.status_code != OK:
            self._journal.wrong(f"a batch was answered with {answer.status_code}: {answer.text[:300]}")
            return
        for entry, result in zip(entries, answer.json()["results"], strict=True):
            if result["status"] >= SERVER_ERROR:
                # One of the batch could not be posted now; alone it is sent until it is answered.
                self.sent.repeated += 1
                self._take_single(
                    entry, await self._until_answered("/api/ledger", shop_of(entry.customer), _document(entry))
                )
            else:
                self._take(entry, result["status"], result.get("entry"), result.get("code"))

    def _take_single(self, entry: Entry, answer: httpx.Response | None) -> None:
        if answer is not None:
            document = answer.json()
            self._take(entry, answer.status_code, document.get("entry"), document.get("code"))

    def _take(self, entry: Entry, status: int, document: dict[str, Any] | None, code: str | None) -> None:
        if status in {OK, CREATED} and document is not None:
            wrong = self._model.accept(entry, document, is_new=status == CREATED)
            if wrong is not None:
                self._journal.wrong(wrong)
            self._journal.note(
                f"posting {entry.external_id} of {entry.amount:+}: {status}, balance {document['balanceAfter']}",
                entry.customer,
            )
        elif status == UNPROCESSABLE and code == "insufficient_balance" and _may_be_refused(entry):
            self._model.refuse(entry)
            self._journal.note(f"posting {entry.external_id} of {entry.amount:+}: refused, {code}", entry.customer)
        else:
            self._journal.wrong(f"posting {entry.external_id} of {entry.amount:+} was answered {status} {code}")

    async def _contradict(self, entry: Entry) -> None:
        self.sent.conflicts += 1
        body = _document(entry) | {"amount": entry.amount + OTHER_POINTS}
        answer = await self._until_answered("/api/ledger", shop_of(entry.customer), body)
        if answer is not None and answer.status_code != CONFLICT:
            self._journal.wrong(
                f"the key {entry.external_id} came with another amount, and was answered {answer.status_code}"
            )

    async def _hang_up(self, path: str, shop: int, body: dict[str, Any], patience_ms: int) -> None:
        """Send it and go away, sooner or later, without having listened."""
        self.sent.reasons["hung up"] += 1
        self.sent.unanswered += 1
        self.sent.repeated += 1
        sending = asyncio.create_task(self._send(path, shop, body))
        await asyncio.wait({sending}, timeout=patience_ms / 1_000)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    async def _until_answered(self, path: str, shop: int, body: dict[str, Any]) -> httpx.Response | None:
        """Send it until there is an answer that says what became of it; None: there never was one, which is noted."""
        began = time.monotonic()
        pause_s, said = PAUSE_S[0], "no answer"
        while time.monotonic() < began + GIVE_UP_S:
            try:
                answer = await self._send(path, shop, body)
            except httpx.HTTPError as error:
                said = type(error).__name__
            else:
                said = f"{answer.status_code} {answer.text[:300]}"
                if answer.status_code < SERVER_ERROR and answer.status_code != TOO_MANY:
                    self.sent.slowest_s = max(self.sent.slowest_s, time.monotonic() - began)
                    return answer
                if answer.status_code not in {UNAVAILABLE, TOO_MANY}:
                    self._journal.wrong(f"POST {path} was answered {said}")
            self.sent.reasons[said[:40]] += 1
            self.sent.unanswered += 1
            self.sent.repeated += 1
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S[1])
        self._journal.wrong(f"POST {path} was never answered in {GIVE_UP_S:.0f} s; last: {said}")
        return None

    async def _send(self, path: str, shop: int, body: dict[str, Any]) -> httpx.Response:
        self.sent.requests += 1
        return await self._http.post(
            f"{self._address}{path}", json=body, headers=self._headers[shop], timeout=ANSWER_TIMEOUT_S
        )


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "shopifyCustomerId": str(entry.customer),
        "amount": entry.amount,
        "reason": "chaos",
        "externalId": entry.external_id,
        "allowNegative": entry.allow_negative,
    }


def _may_be_refused(entry: Entry) -> bool:
    return entry.amount < 0 and not entry.allow_negative
