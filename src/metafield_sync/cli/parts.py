"""What the commands share: the program's parts opened, the shop meant, and options that check themselves."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from cyclopts import Group, Parameter

from metafield_sync import logs
from metafield_sync.customers.identity import SHOPIFY_ID_MAX
from metafield_sync.errors import AppError
from metafield_sync.runtime import Runtime, open_runtime
from metafield_sync.settings import Settings
from metafield_sync.shops.registry import ShopNotFound, check_domain, list_shops

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from cyclopts import Token

    from metafield_sync.shops.registry import Shop

DONE = 0
FAILURES = 1
WRONG = 2
"""Exit statuses: done; finished with failures; wrong usage or settings."""

TRY_GROUP = Group("Try it", sort_key=1)
RUN_GROUP = Group("Run it", sort_key=2)
SHOPS_GROUP = Group("Shops and API keys", sort_key=3)
POINTS_GROUP = Group("Points", sort_key=4)
"""How the commands are put together in the help, in this order."""

UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
INTEGER_TEXT = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)


class UsageWrong(AppError):
    """The command line makes no sense as given."""

    code = "wrong_usage"
    status = 400
    exit_status = WRONG


@asynccontextmanager
async def opened() -> AsyncGenerator[Runtime]:
    """The parts, for a command that does one thing and ends: it logs warnings only, unless LOG_LEVEL says otherwise."""
    settings = Settings.load()
    logs.configure(settings, level=quiet_level(settings))
    async with open_runtime(settings) as runtime:
        yield runtime


def quiet_level(settings: Settings) -> str:
    """The log level of a command whose result is what it prints."""
    return settings.log_level if "log_level" in settings.model_fields_set else "warning"


async def one_shop(runtime: Runtime, domain: str | None) -> Shop:
    """The shop named, or the only one there is.

    Raises:
        ShopDomainInvalid, ShopNotFound: it is not a domain, or no shop of ours.
        UsageWrong: none is named and there are several.
    """
    shops = await these_shops(runtime, domain)
    if len(shops) > 1:
        raise UsageWrong(f"There are {len(shops)} shops; say which with --shop: {', '.join(s.domain for s in shops)}")
    return shops[0]


async def these_shops(runtime: Runtime, domain: str | None) -> list[Shop]:
    """The shop named, or every shop there is.

    Raises:
        ShopDomainInvalid, ShopNotFound: it is not a domain, or no shop of ours; or there is none at all.
    """
    wanted = None if domain is None else check_domain(domain)
    async with runtime.db.unscoped() as conn:
        shops = await list_shops(conn, wanted)
    if not shops:
        raise ShopNotFound(
            "No shop has been added yet. Add one with: metafield-sync shops add NAME.myshopify.com --access-token -"
        )
    return shops


def _text(tokens: Sequence[Token]) -> str:
    return tokens[0].value


def _whole(_: type, tokens: Sequence[Token]) -> int:
    # int() would take 1_000 and, before it, the option parser 1.5 as 2: points are integers, written as such.
    if INTEGER_TEXT.fullmatch(_text(tokens)) is None:
        raise ValueError(f"{_text(tokens)!r} is not a whole number")
    return int(_text(tokens))


def _uuid(_: type, tokens: Sequence[Token]) -> UUID:
    if UUID_TEXT.fullmatch(_text(tokens)) is None:
        raise ValueError(f"{_text(tokens)!r} is not a customer's UUID, such as 0b5cf5f4-58a6-4d7e-9a55-3f4f4f5d8d10")
    return UUID(_text(tokens))


def _shopify_id(_: type, tokens: Sequence[Token]) -> str:
    text = _text(tokens)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:30]) <= SHOPIFY_ID_MAX):
        raise ValueError(f"{text!r} is not a Shopify customer id: the digits at the end of gid://shopify/Customer/…")
    return text


ShopOption = Annotated[
    str | None, Parameter(metavar="DOMAIN", help="The shop, as name.myshopify.com. Not needed when there is only one.")
]
CustomerOption = Annotated[
    UUID | None, Parameter(converter=_uuid, metavar="UUID", help="Only this customer, by our id.")
]
ShopifyCustomerOption = Annotated[
    str | None,
    Parameter(converter=_shopify_id, metavar="ID", help="The customer, by Shopify's id. An unknown one is created."),
]
Whole = Annotated[int, Parameter(converter=_whole)]
JsonOption = Annotated[
    bool,
    Parameter(name="--json", negative=(), help="Print one JSON document on standard output, and nothing else."),
]


def one_document(found: Sequence[tuple[Shop, dict[str, object]]]) -> dict[str, object]:
    """The document for `--json`: the one shop's own, as the API answers it, or each under its shop."""
    if len(found) == 1:
        return found[0][1]
    return {"shops": [{"shop": shop.domain, **document} for shop, document in found]}
