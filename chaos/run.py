"""One run: everything goes wrong at once, then nothing does, and then it is looked at."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from chaos import database, judge
from chaos.faults import ambush_rule
from chaos.journal import Journal
from chaos.model import Model
from chaos.plan import Ambush, Batch, Delete, Erase, Freeze, Kill, KillWeb, Manner, Overwrite, Post, Spend
from chaos.postings import Poster
from chaos.processes import ChaosFailed, as_log_line
from chaos.report import Report, WrongCustomer
from chaos.shops import DOMAINS
from chaos.stage import as_document

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from typing import Any

    from chaos.judge import Difference
    from chaos.plan import Action, Foreign, Plan
    from chaos.stage import Stage
    from chaos.store import ForeignAct

ADDRESS = re.compile(r"\b0x[0-9a-f]+")
REST_S_MAX = 360
"""So long after the last posting everything has to be right by itself."""
REPAIR_S_MAX = 60
"""And so long after the reconciliation."""
REST_POLL_S = 0.5
NEWS_EVERY_S = 15
LOOK_EVERY_S = 2.0
AMBUSH_WAIT_S = 15.0
"""How long an ambush waits for the push."""
AMBUSH_POLL_S = 0.1
HOLDER_WAIT_S = 5.0
"""How long a freeze waits for a worker to hold the lease."""
HOLDER_POLL_S = 0.01


class Run:
    """One run on a stage. `hurried`: doubts are aged in the database instead of being waited for."""

    def __init__(self, stage: Stage, plan: Plan, *, hurried: bool) -> None:
        scope = plan.scope
        self._stage = stage
        self._plan = plan
        self._journal = Journal()
        self._model = Model()
        self._poster = Poster(stage.http, stage.address, stage.keys, self._model, self._journal)
        self._began_s = time.time()
        self._is_over = False
        self._wrong: dict[int, tuple[Difference, str]] = {}
        self.report = Report(
            seed=scope.seed,
            plan=plan.digest,
            seconds=scope.seconds,
            customers=scope.customers,
            workers=scope.workers,
            hurried=hurried,
        )

    async def to_the_end(self) -> Report:
        """All of it."""
        await self._wreak_havoc()
        await self._come_to_rest(REST_S_MAX)
        await self._hold_ledger_against_model()
        left = await self._compare("when traffic had stopped", may_be_explained=True)
        self.report.explained = [
            f"customer {one.customer}: ledger {one.balance}, metafield {one.shown}; {one.why}" for one in left
        ]
        self.report.repairs = await database.activity(self._stage.conn)
        await self._reconcile(left)
        await self._compare("after the reconciliation", may_be_explained=False)
        await self._write_report()
        return self.report

    async def _wreak_havoc(self) -> None:
        """Carry out the plan; then let everything be well, and wait until each posting has its answer."""
        stage, zero = self._stage, time.monotonic()
        self._began_s = time.time()
        await stage.store.arm(self._plan.faults)
        watch = asyncio.create_task(self._look_after_forever())
        async with asyncio.TaskGroup() as tasks:
            for action in self._plan.actions:
                await asyncio.sleep(zero + action.at_s - time.monotonic())
                self.report.plan_late_s = max(self.report.plan_late_s, round(time.monotonic() - zero - action.at_s, 1))
                if isinstance(action, Post | Batch | Freeze | Ambush):
                    tasks.create_task(self._at_leisure(action))
                else:
                    await self._at_once(action)
            await asyncio.sleep(zero + self._plan.scope.seconds - time.monotonic())
            self._is_over = True
            stage.fleet.thaw()
            await stage.store.disarm()
            self._tell("faults and kills are over; nobody asks for a repair")
        await self._poster.settle()
        watch.cancel()

    def _at_leisure(self, action: Post | Batch | Freeze | Ambush) -> Coroutine[Any, Any, None]:
        """What takes its time, beside everything else."""
        match action:
            case Post():
                return self._poster.post(action)
            case Batch():
                return self._poster.batch(action)
            case Freeze():
                return self._freeze(action)
            case Ambush():
                return self._ambush(action)

    async def _at_once(self, action: Action) -> None:
        report, stage = self.report, self._stage
        match action:
            case Overwrite() | Erase() | Delete():
                await self._do(action)
            case Spend():
                await stage.store.spend(action.shop, action.points)
            case Kill():
                self._look_after()
                worker = stage.fleet.kill(action.slot)
                report.kills += 1
                self._journal.note(f"{worker.name} killed and replaced by process {worker.pid}")
            case KillWeb():
                self._look_after()
                stage.web.kill()
                stage.web.start()
                report.web_kills += 1
                self._journal.note("web killed and replaced")
            case Post() | Batch() | Freeze() | Ambush():
                pass

    async def _do(self, action: Foreign) -> ForeignAct:
        act = await self._stage.store.do(action)
        self._journal.note(f"somebody else: {act.kind} {act.value or ''}", act.customer)
        kind = {"overwrite": "metafields overwritten", "erase": "metafields removed", "delete": "customers deleted"}
        name = f"{kind[act.kind]} by somebody else"
        self.report.foreign[name] = self.report.foreign.get(name, 0) + 1
        return act

    async def _freeze(self, action: Freeze) -> None:
        """Freeze whoever holds most leases, as soon as a worker does hold one."""
        holder, deadline = None, time.monotonic() + HOLDER_WAIT_S
        while holder is None and time.monotonic() < deadline:
            pids = {worker.pid for worker in self._stage.fleet.workers if not worker.is_frozen}
            leases = await database.lease_holders(self._stage.conn)
            holding = Counter(pid for pid in leases.values() if pid in pids)
            holder = holding.most_common(1)[0][0] if holding else None
            await asyncio.sleep(0 if holder else HOLDER_POLL_S)
        if self._is_over:
            return
        worker = self._stage.fleet.choose_to_freeze(action.slot, holder)
        self.report.freezes += 1
        self.report.freezes_of_the_lease_holder += worker.pid == holder
        self._journal.note(f"{worker.name} frozen, process {worker.pid}, holder {holder}")
        await asyncio.sleep(action.for_s)
        worker.thaw()
        self._journal.note(f"{worker.name} goes on")

    async def _ambush(self, action: Ambush) -> None:
        """Have a write swallowed, take back what it wrote, and kill who waits for its answer."""
        stage, domain = self._stage, DOMAINS[action.shop]
        [rule] = await stage.store.arm([ambush_rule(domain)])
        await self._poster.post(Post(action.at_s, action.there, Manner.PLAIN))
        deadline = time.monotonic() + AMBUSH_WAIT_S
        while not await stage.store.has_struck(rule):
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(AMBUSH_POLL_S)
        self._journal.note("its push was swallowed", action.there.customer)
        await self._poster.post(Post(action.at_s, action.back, Manner.PLAIN))
        await asyncio.sleep(action.delay_s)
        holder = (await database.lease_holders(stage.conn)).get(domain)
        program = stage.fleet.with_pid(holder) or (stage.web if stage.web.pid == holder else None)
        if program is not None and not self._is_over:
            program.kill()
            program.start()
            self.report.ambushes += 1
            self._journal.note(f"{program.name} killed as it waited, and replaced", action.there.customer)

    async def _come_to_rest(self, most_s: float) -> None:
        """Wait until there is nothing left to push, to read back or to be executed late."""
        began = told = time.monotonic()
        while True:
            self._look_after()
            unfinished = await self._stage.store.unfinished()
            if self.report.hurried and not unfinished:
                await database.age_doubts(self._stage.conn)
            left = {**await database.restlessness(self._stage.conn), "calls_unfinished": unfinished}
            passed_s = time.monotonic() - began
            if not any(left.values()):
                self.report.at_rest_after_s = self.report.at_rest_after_s or round(passed_s, 1)
                self.report.not_at_rest = {}
                return
            if passed_s > most_s:
                self.report.not_at_rest = left
                if self.report.at_rest_after_s is None:
                    self._journal.wrong(f"not at rest {passed_s:.0f} s after the last posting: {left}")
                return
            if time.monotonic() - told > NEWS_EVERY_S:
                told = time.monotonic()
                self._tell(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in left.items()))
            await asyncio.sleep(REST_POLL_S)

    def _look_after(self) -> None:
        """Start again whoever ended by itself, as whatever supervises a real installation would."""
        for program in (self._stage.web, *self._stage.fleet.workers):
            if program.status is not None:
                self._journal.wrong(f"{program.name} ended by itself with status {program.status}: {program.tail()}")
                program.start()

    async def _look_after_forever(self) -> None:
        while True:
            self._look_after()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _hold_ledger_against_model(self) -> None:
        conn = self._stage.conn
        for wrong in self._model.against(await database.ledger(conn), await database.balances(conn)):
            self._journal.wrong(wrong)

    async def _compare(self, when: str, *, may_be_explained: bool) -> list[Difference]:
        """Hold what Shopify shows against the model; note who is wrong, and return who is not, though different."""
        store = self._stage.store
        balances = {customer: self._model.balance(customer) for customer in self._model.accepted}
        found = judge.differences(balances, await store.shown(), store.acts, await store.calls(), store.rules)
        excused = [one for one in found if may_be_explained and one.why is not None]
        self._wrong.update({one.customer: (one, when) for one in found if one not in excused})
        return excused

    async def _reconcile(self, left: Sequence[Difference]) -> None:
        """Have somebody else do some more where nothing can notice it; then reconcile once, and wait for its pushes."""
        stage = self._stage
        gone_unnoticed = {
            customer
            for customer, row in (await database.mirror(stage.conn)).items()
            if customer in stage.store.deleted and row["status"] != "missing"
        }
        for action in self._plan.parting:
            await self._do(action)
        last = {act.customer: act for act in stage.store.acts}
        parting = {action.customer for action in self._plan.parting}
        expected = {
            customer: judge.drift_kind(last[customer])
            for customer in {one.customer for one in left} | gone_unnoticed | parting
        }
        done = await stage.command("reconcile", "--repair", "--json")
        try:
            documents = as_document(done)["shops"]
        except ChaosFailed as error:
            self._journal.wrong(str(error))
            return
        for text in [document["error"] for document in documents if document.get("error")]:
            self._journal.wrong(f"a shop was not reconciled: {text}")
        if done.returncode != 0:
            self._journal.wrong(f"the reconciliation ended with status {done.returncode}: it has left something")
        documents = [document for document in documents if not document.get("error")]
        by_kind: Counter[str] = Counter()
        for document in documents:
            by_kind.update(document["byKind"])
        self.report.reconciliation = {
            **{name: sum(document[name] for document in documents) for name in ("total", "drifted", "repaired")},
            "byKind": dict(by_kind),
        }
        await self._come_to_rest(REPAIR_S_MAX)
        found = await database.drifts(stage.conn)
        # Who was wrong before is told of already; what the reconciliation finds there is what was found before it.
        expected |= {customer: found[customer][0] for customer in self._wrong if customer in found}
        for wrong in judge.reconciled(expected, self.report.reconciliation, found):
            self._journal.wrong(wrong)
        mirror = await database.mirror(stage.conn)
        for customer in sorted(stage.store.deleted):
            if (status := mirror[customer]["status"]) != "missing":
                self._journal.wrong(f"customer {customer} was deleted in Shopify, and is {status} here")

    async def _write_report(self) -> None:
        report, stage, sent = self.report, self._stage, self._poster.sent
        calls, mirror = await stage.store.calls(), await database.mirror(stage.conn)
        report.repairs["drifts"] = (await database.activity(stage.conn)).get("drifts", 0)
        report.faults = dict(sorted(stage.store.struck.items()))
        report.late_executions = sum(call["lateOf"] is not None for call in calls)
        report.postings = {
            "acknowledged": self._model.acknowledged,
            "refused, for want of points": len(self._model.refused_for_good),
            "requests sent": sent.requests,
            "requests without an answer": sent.unanswered,
            **{f"… {reason}": count for reason, count in sent.reasons.most_common()},
            "sent again under the same key": sent.repeated,
            "keys sent with another amount": sent.conflicts,
        }
        report.slowest_posting_s = round(sent.slowest_s, 1)
        report.logged = self._logged()
        report.wrongs = self._journal.told_wrongs()
        report.wrong_customers = [
            WrongCustomer(
                customer,
                one.balance,
                one.shown,
                when,
                _told(mirror.get(customer, {})),
                judge.history(customer, self._journal.events, calls, stage.store.rules, self._began_s),
            )
            for customer, (one, when) in sorted(self._wrong.items())
        ]

    def _logged(self) -> dict[str, int]:
        """Warnings and errors of our processes, counted by what they say."""
        found: Counter[str] = Counter()
        for log in self._stage.logs():
            for text in log.read_text(errors="replace").splitlines():
                line = as_log_line(text)
                if line is None:
                    found[f"{log.stem}: no line of a log: {text[:100]}"] += 1
                elif line.get("level") in {"warning", "error", "critical"}:
                    found[f"{line['level']}: {ADDRESS.sub('…', line.get('message', ''))[:120]}"] += 1
        return dict(found.most_common())

    def _tell(self, text: str) -> None:
        print(f"{time.time() - self._began_s:6.0f} s  {text}", file=sys.stderr, flush=True)


def _told(row: Mapping[str, Any]) -> dict[str, str]:
    """A row for people: what is not null."""
    return {name: str(value)[:80] for name, value in row.items() if value is not None}
