"""Run it: `python -m chaos [--seed N] [--seconds N] [--customers N] [--workers N] [--json]`."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from chaos.plan import Scope, make_plan
from chaos.processes import ChaosFailed
from chaos.run import Run
from chaos.stage import staged

PASSED, FAILED, NOT_MADE = 0, 1, 2
SECONDS_MIN, CUSTOMERS_MIN = 5, 10

app = cyclopts.App(name="chaos", help="Everything between the ledger and Shopify goes wrong; nothing may stay wrong.")


@app.default
def main(
    *,
    seed: int = 7,
    seconds: int = 60,
    customers: int = 200,
    workers: int = 3,
    json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    hurry: Annotated[bool, Parameter(negative=())] = False,
    keep: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Break everything for a while, wait at most six minutes, and look. Exit status: 0 pass, 1 fail, 2 not carried out.

    Args:
        seed: decides the plan.
        seconds: how long everything goes wrong.
        customers: how many there are.
        workers: how many processes push.
        json: print one JSON document on standard output.
        hurry: for developing. As soon as Shopify has executed every late call, doubts are made five minutes older in
            the database. Who is read back and what comes of it is proved all the same; when it happens is not.
        keep: keep the folder with the logs and the database even if all is well.
    """
    if seconds < SECONDS_MIN or customers < CUSTOMERS_MIN or workers < 1:
        print(f"chaos: at least {SECONDS_MIN} seconds, {CUSTOMERS_MIN} customers, 1 worker", file=sys.stderr)
        return NOT_MADE
    try:
        return asyncio.run(_run(Scope(seed, seconds, customers, workers), json=json, hurry=hurry, keep=keep))
    except ChaosFailed as error:
        print(f"chaos: {error}", file=sys.stderr)
        return NOT_MADE


async def _run(scope: Scope, *, json: bool, hurry: bool, keep: bool) -> int:
    plan = make_plan(scope)
    print(f"Seed {scope.seed}: plan {plan.digest}, {len(plan.actions)} actions", file=sys.stderr, flush=True)
    folder = Path(tempfile.mkdtemp(prefix="metafield-sync-chaos-"))
    has_passed = False
    try:
        async with staged(folder, scope) as stage:
            report = await Run(stage, plan, hurried=hurry).to_the_end()
        has_passed = report.has_passed
        report.folder = None if has_passed and not keep else str(folder)
        print(report.as_json() if json else report.as_text())
        return PASSED if has_passed else FAILED
    finally:
        if has_passed and not keep:
            shutil.rmtree(folder, ignore_errors=True)
        elif not keep:
            shutil.rmtree(folder / "data", ignore_errors=True)


sys.exit(app())
