"""`serve` and `worker`, as processes: ready, at work, stopped, and refused a port."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cli_support import PATIENCE_S, TOKEN, Program, Store

from metafield_sync.sync.runs import RUN_ORPHANED_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from cli_support import Cli


def _address(program: Program) -> str:
    """Where it says it serves."""
    program.wait_for(lambda: '"serving"' in program.err)
    line = next(line for line in program.err.splitlines() if '"serving"' in line)
    return json.loads(line)["address"]


def _eventually(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def key(cli: Cli, shop: str) -> str:
    return cli("keys", "create", "--shop", shop, "--name", "test").out.strip()


def _call(method: str, url: str, key: str, body: Any = None) -> httpx.Response:
    return httpx.request(method, url, json=body, headers={"Authorization": f"Bearer {key}"}, trust_env=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serving_pushes_what_is_posted_and_stops_in_order(
    environment: dict[str, str], key: str, store: Store, number: signal.Signals
) -> None:
    with Program("serve", environment=environment) as program:
        address = _address(program)
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", address)
        assert _call("GET", f"{address}/readyz", key).status_code == 200
        body = {"shopifyCustomerId": "1", "amount": 150, "reason": "gift"}
        assert _call("POST", f"{address}/api/ledger", key, body).status_code == 201
        _eventually(lambda: store.shown() == {"1": "150"})
        stopped = program.stop(number)
    assert stopped.status == 0
    assert stopped.out == ""
    assert "Traceback" not in stopped.err
    assert key not in stopped.err
    assert TOKEN not in stopped.err
    for line in stopped.err.splitlines():
        assert list(json.loads(line))[:3] == ["timestamp", "level", "message"]


def test_the_web_alone_carries_out_what_it_is_asked(environment: dict[str, str], key: str, store: Store) -> None:
    with Program("serve", "--no-worker", environment=environment) as program:
        address = _address(program)
        body = {"shopifyCustomerId": "1", "amount": 150, "reason": "gift"}
        assert _call("POST", f"{address}/api/ledger", key, body).status_code == 201
        synced = _call("POST", f"{address}/api/sync-balances", key).json()
        assert (synced["message"], synced["synced"]) == ("Sync complete", 1)
        assert program.stop(signal.SIGTERM).status == 0
    assert store.shown() == {"1": "150"}


def test_a_worker_alone_pushes_and_stops_in_order(
    environment: dict[str, str], cli: Cli, shop: str, store: Store
) -> None:
    with Program("worker", environment=environment) as program:
        program.wait_for(lambda: '"working"' in program.err)
        posted = cli("post", "--shop", shop, "--shopify-customer", "2", "--amount", "7", "--reason", "gift")
        assert posted.status == 0
        _eventually(lambda: store.shown() == {"2": "7"})
        stopped = program.stop(signal.SIGTERM)
    assert stopped.status == 0
    assert "Traceback" not in stopped.err


def test_a_port_in_use_is_one_line_that_names_it(bare_cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, settings in ((["--port", port], {}), ([], {"PORT": port})):
            refused = bare_cli("serve", *arguments, **settings)
            assert refused.status == 2
            assert f"HOST=127.0.0.1 PORT={port}" in refused.complaint
        for demo in (bare_cli("demo", "--port", port), bare_cli("demo", PORT=port)):
            assert demo.status == 2
            assert f"PORT={port}" in demo.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "65536"], "PORT"),
        (["--port", "http"], "--port"),
        (["--host", "192.0.2.1"], "HOST=192.0.2.1"),
        (["--host", "nowhere.invalid"], "HOST=nowhere.invalid"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_line(bare_cli: Cli, arguments: list[str], said: str) -> None:
    refused = bare_cli("serve", *arguments)
    assert refused.status == 2
    assert said in refused.complaint


@pytest.fixture
def slow(store: Store) -> Iterator[None]:
    """Shopify takes its time."""
    store.control("PUT", "/latency", {"ms": 1500})
    yield
    store.control("PUT", "/latency", {"ms": 0})


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background job"])
def started_as(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a process inherits: a shell script starts its background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("slow", "started_as")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_ends_quietly(
    environment: dict[str, str], cli: Cli, shop: str, store: Store, number: signal.Signals, status: int
) -> None:
    cli("post", "--shop", shop, "--shopify-customer", "1", "--amount", "7", "--reason", "gift")
    with Program("sync", "--shop", shop, environment=environment) as program:
        program.wait_for(lambda: store.control("GET", "/stats")["inFlight"])
        ended = program.stop(number)
    assert (ended.status, ended.out, ended.err) == (status, "", "")


@pytest.mark.usefixtures("slow")
def test_a_sync_that_was_killed_is_completed_by_the_next(
    environment: dict[str, str], cli: Cli, shop: str, store: Store, owner: psycopg.Connection
) -> None:
    cli("post", "--shop", shop, "--shopify-customer", "1", "--amount", "7", "--reason", "gift")
    with Program("sync", "--shop", shop, environment=environment) as program:
        program.wait_for(lambda: store.control("GET", "/stats")["inFlight"])
        assert program.stop(signal.SIGKILL).status == -signal.SIGKILL
    # Nobody waits the whole 15 s until it counts as orphaned; two are enough to find it still taken at first.
    owner.execute("update sync_runs set heartbeat_at = heartbeat_at - make_interval(secs => %s)", (RUN_ORPHANED_S - 2,))
    owner.execute("update shop_leases set expires_at = '-infinity'")
    synced = cli("sync", "--json")
    assert synced.status == 0
    assert (synced.document["synced"], store.shown()) == (1, {"1": "7"})
    assert owner.execute("select count(*) from sync_runs").fetchone() == (1,)
