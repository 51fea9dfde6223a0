"""Flow: runs of the app's actions, and triggers the app fires."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from app_support import SECRET, Receiver
from devstore_support import DOMAIN, Bench, Remote
from starlette.responses import Response

from devstore import DevStore, ManualClock
from devstore.flow import GIVE_UP_S, RETRY_FIRST_S, Flow, RunStatus

PROPERTIES = {"customer_id": "7", "points": "10"}
TRIGGER = """mutation T($handle: String, $payload: JSON) {
  flowTriggerReceive(handle: $handle, payload: $payload) { userErrors { field message } } }"""


@pytest.fixture
def flow(store: DevStore, app: Receiver) -> Flow:
    del app  # runs go to it
    return store.shop(DOMAIN).flow


async def test_a_run_is_a_signed_request_with_what_the_merchant_filled_in(flow: Flow, app: Receiver) -> None:
    run = flow.run("adjust-points", PROPERTIES)
    await flow.settle()
    (came,) = app.received
    assert (came.method, came.path, run.status) == ("POST", "/flow/adjust-points", RunStatus.DONE)
    expected = base64.b64encode(hmac.new(SECRET.encode(), came.body, hashlib.sha256).digest()).decode()
    assert came.headers["X-Shopify-Hmac-Sha256"] == expected
    said = came.json
    assert said.pop("step_reference")
    assert said == {
        "shop_id": "1",
        "shopify_domain": DOMAIN,
        "action_run_id": run.action_run_id,
        "action_definition_id": "adjust-points",
        "handle": "adjust-points",
        "properties": PROPERTIES,
    }


@pytest.mark.parametrize("status", [202, 429, 500, 503])
async def test_what_is_not_decided_is_sent_again_as_the_same_run(
    flow: Flow, app: Receiver, clock: ManualClock, status: int
) -> None:
    app.fail(2, status)
    run = flow.run("adjust-points", PROPERTIES)
    await flow.settle()
    for expected in (2, 3):
        assert run.status is RunStatus.WAITING
        clock.advance(RETRY_FIRST_S * 2)
        await flow.settle()
        assert len(app.received) == expected
    assert run.status is RunStatus.DONE
    assert {came.body for came in app.received} == {run.body}


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
async def test_another_refusal_is_a_failure_for_good(flow: Flow, app: Receiver, status: int) -> None:
    app.fail(1, status)
    run = flow.run("adjust-points", PROPERTIES)
    await flow.settle()
    assert (run.status, flow.retry_now(), len(app.received)) == (RunStatus.FAILED, 0, 1)


async def test_too_many_requests_are_tried_again_when_told(flow: Flow, app: Receiver, clock: ManualClock) -> None:
    app.answers.append(Response(status_code=429, headers={"Retry-After": "120"}))
    run = flow.run("adjust-points", PROPERTIES)
    await flow.settle()
    clock.advance(119.9)
    await flow.settle()
    assert len(app.received) == 1
    clock.advance(0.2)
    await flow.settle()
    assert run.status is RunStatus.DONE


async def test_it_gives_up_after_a_day(flow: Flow, app: Receiver, clock: ManualClock) -> None:
    app.fail(100)
    run = flow.run("adjust-points", PROPERTIES)
    await flow.settle()
    clock.advance(GIVE_UP_S)
    await flow.settle()
    assert (run.status, len(app.received)) == (RunStatus.FAILED, 2)


async def test_the_control_api_starts_runs_and_shows_what_came_of_them(remote: Remote, app: Receiver) -> None:
    path = f"/shops/{DOMAIN}/flow/runs"
    app.fail(1, 202)
    given = {"handle": "adjust-points", "properties": PROPERTIES, "actionRunId": "run-1"}
    started = await remote.control("POST", path, **given)
    assert (started["status"], started["actionRunId"]) == ("waiting", "run-1")
    assert await remote.control("POST", f"{path}/retry") == {"retried": 1}
    (run,) = await remote.control("GET", path)
    assert (run["status"], [one["status"] for one in run["tries"]]) == ("done", [202, 200])
    answer = await remote.http.post(f"{remote.origin}/_devstore{path}", json={"handle": "unknown"})
    assert answer.status_code == 400


async def test_a_trigger_the_app_fires_is_kept_as_it_was(remote: Remote) -> None:
    payload = {"customer_id": 7, "Points balance": "12"}
    answer = (await remote.post(TRIGGER, {"handle": "points-changed", "payload": payload})).json()
    assert answer["data"]["flowTriggerReceive"] == {"userErrors": []}
    assert answer["extensions"]["cost"]["requestedQueryCost"] == 10
    (fired,) = await remote.control("GET", f"/shops/{DOMAIN}/flow/triggers")
    assert (fired["handle"], fired["payload"]) == ("points-changed", payload)


@pytest.mark.parametrize("variables", [{"payload": {}}, {"handle": "x"}, {"handle": "x", "payload": [1]}])
def test_a_trigger_without_a_handle_or_a_payload_is_refused(bench: Bench, variables: dict[str, object]) -> None:
    assert bench.data(TRIGGER, variables)["flowTriggerReceive"]["userErrors"]
    assert bench.shop.flow.triggers == []
