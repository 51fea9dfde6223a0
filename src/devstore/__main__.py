"""`python -m devstore`: serve until told to stop. See the package's documentation."""

import argparse
import asyncio
import json
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from devstore.app import App
from devstore.budget import Plan
from devstore.faults import Latency
from devstore.gids import parse_gid
from devstore.server import DEMO_SHOP, DevStore
from devstore.shops import ShopSpec

_PORT_MAX = 65_535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 stopped as asked, 2 could not start."""
    options = _parser().parse_args(arguments)
    try:
        shops = _shops(options)
        latency = Latency(*_range(options.latency_ms))
        if not 0 <= options.port <= _PORT_MAX:
            raise ValueError(f"port {options.port} is none of 0 to {_PORT_MAX}")  # noqa: TRY301  # one place reports
        store = DevStore(
            shops, host=options.host, port=options.port, state=options.state, latency=latency, app=_app(options)
        )
    except (OSError, OverflowError, ValueError, sqlite3.Error) as error:
        sys.stderr.write(f"devstore: {error}\n")
        return 2
    asyncio.run(_serve(store))
    return 0


class _Options(argparse.Namespace):
    host: str
    port: int
    shop: list[str]
    token: str | None
    plan: Plan | None
    customers: int
    customers_file: Path | None
    latency_ms: str
    state: Path | None
    app_url: str | None
    app_config: Path | None
    client_id: str | None
    client_secret: str | None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="devstore", description="A local stand-in for Shopify development stores.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument(
        "--shop",
        action="append",
        default=[],
        metavar="DOMAIN[:TOKEN]",
        help="a shop to hold; may be repeated",
    )
    parser.add_argument("--token", help="access token of the shops that name none of their own")
    parser.add_argument("--plan", type=Plan, choices=list(Plan), help="plan of the shops (default: standard)")
    parser.add_argument("--customers", type=int, default=0, metavar="N", help="customers 1 to N in each shop")
    parser.add_argument(
        "--customers-file",
        type=Path,
        metavar="FILE",
        help="customers of each shop: an id or global id a line",
    )
    parser.add_argument("--latency-ms", default="0", metavar="MS[-MS]", help="how long answers take")
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep the shops here, over restarts and kill -9")
    parser.add_argument("--app-url", metavar="URL", help="where the app is that may be installed in the shops")
    parser.add_argument("--app-config", type=Path, metavar="FILE", help="the app's shopify.app.toml")
    parser.add_argument("--client-id", metavar="ID", help="the app's client id (default: that of FILE)")
    parser.add_argument("--client-secret", metavar="SECRET", help="the app's client secret")
    return parser


def _app(options: argparse.Namespace) -> App:
    given, app = _Options(**vars(options)), App()
    if given.app_config is not None:
        app.configure(given.app_config)
    app.url = given.app_url
    app.client_id = given.client_id or app.client_id
    app.client_secret = given.client_secret or app.client_secret
    return app


def _shops(options: argparse.Namespace) -> list[ShopSpec]:
    given = _Options(**vars(options))
    numbers = _read_numbers(given.customers_file) if given.customers_file else ()
    specs: list[ShopSpec] = []
    for text in given.shop or [DEMO_SHOP.domain]:
        domain, _, token = text.partition(":")
        specs.append(ShopSpec(domain, token or given.token, given.plan, given.customers, numbers))
    if not (given.state or given.app_url) and any(spec.token is None for spec in specs):
        raise ValueError("a shop needs a token (--shop DOMAIN:TOKEN, --token TOKEN), or an app that asks for one")
    return specs


def _read_numbers(path: Path) -> tuple[int, ...]:
    numbers: list[int] = []
    for line in path.read_text(encoding="utf-8").split():
        gid = parse_gid(line)
        numbers.append(gid.number if gid else int(line))
    return tuple(numbers)


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


async def _serve(store: DevStore) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with store:
        ready = {"origin": store.origin, "adminOrigin": store.admin_origin, "shops": list(store.world.shops)}
        sys.stdout.write(f"{json.dumps(ready)}\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    sys.exit(main())
