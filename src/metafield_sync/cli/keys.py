"""`keys`: what programs call the API with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from metafield_sync.cli.output import hint, progress, say, show_json, stdout, warn
from metafield_sync.cli.parts import (
    DONE,
    FAILURES,
    SHOPS_GROUP,
    JsonOption,
    ShopOption,
    UsageWrong,
    Whole,
    one_shop,
    opened,
)
from metafield_sync.shops import api_keys
from metafield_sync.shops.api_keys import NAME_CHARS_MAX, Scope
from metafield_sync.shops.rotation import rotate

if TYPE_CHECKING:
    from datetime import datetime

app = App(
    name="keys",
    help="Create, list and revoke API keys, each of which decides the shop; and rotate the keys that seal tokens.",
    help_format="plaintext",
    group=SHOPS_GROUP,
)


@app.command
async def create(
    *,
    shop: ShopOption = None,
    name: Annotated[str, Parameter(metavar="NAME", help="What it is for, as you will read it in the list.")],
    scope: Annotated[Scope, Parameter(help="read looks only; write posts and syncs too.")] = "write",
    json: JsonOption = False,
) -> int:
    """Create a key and print it, alone, once. Only its hash is stored: nobody can show it again."""
    if not name.strip() or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise UsageWrong(f"--name: 1 to {NAME_CHARS_MAX} printable characters.")
    async with opened() as runtime:
        found = await one_shop(runtime, shop)
        async with runtime.db.shop(found.id) as conn:
            key = await api_keys.create_key(conn, found.id, name=name, scope=scope)
    if json:
        show_json({"shop": found.domain, "name": name, "scope": scope, "key": key})
        return DONE
    hint(f"A {scope} key for {found.domain}. Keep it safe: it is shown this once.")
    say(key)
    return DONE


@app.command(name="list")
async def list_(*, shop: ShopOption = None, json: JsonOption = False) -> int:
    """List a shop's keys, revoked ones included; never the keys themselves."""
    async with opened() as runtime:
        found = await one_shop(runtime, shop)
        async with runtime.db.shop(found.id) as conn:
            keys = await api_keys.list_keys(conn, found.id)
    if json:
        show_json({"shop": found.domain, "keys": [_key_document(key) for key in keys]})
        return DONE
    if not keys:
        say(f"{found.domain} has no API keys.")
        hint(f"Create one with: metafield-sync keys create --shop {found.domain} --name my-app")
        return DONE
    table = Table("No.", "Name", "Scope", "Created", "Revoked", box=None, pad_edge=False)
    for key in keys:
        revoked = "" if key.revoked_at is None else _minute(key.revoked_at)
        table.add_row(str(key.id), key.name, key.scope, _minute(key.created_at), revoked)
    stdout().print(table)
    return DONE


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _key_document(key: api_keys.ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.scope,
        "createdAt": _rfc_3339(key.created_at),
        "revokedAt": None if key.revoked_at is None else _rfc_3339(key.revoked_at),
    }


def _rfc_3339(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


@app.command
async def revoke(
    key: Annotated[Whole, Parameter(metavar="NUMBER", help="The key's number, from `keys list`.")],
    /,
    *,
    shop: ShopOption = None,
    json: JsonOption = False,
) -> int:
    """Make a key worthless from now on."""
    async with opened() as runtime:
        found = await one_shop(runtime, shop)
        async with runtime.db.shop(found.id) as conn:
            await api_keys.revoke_key(conn, found.id, key)
    if json:
        show_json({"shop": found.domain, "id": key, "revoked": True})
    else:
        say(f"Key {key} of {found.domain}: revoked.")
    return DONE


@app.command(name="rotate-encryption")
async def rotate_encryption(*, json: JsonOption = False) -> int:
    """Seal every stored access token with the newest of ENCRYPTION_KEYS, so that older keys may be dropped.

    Put the new key first and restart every process with both, then run this. It can be run again, and beside them.
    """
    async with opened() as runtime:
        if not runtime.settings.encryption_keys:
            raise UsageWrong("ENCRYPTION_KEYS is not set; put the new key first, then the one in use.")
        with progress("Sealing tokens", plain_lines=not json) as tell:
            done = await rotate(runtime.db, runtime.vault, tell)
    if json:
        show_json(
            {
                "resealed": done.resealed,
                "newest": done.newest,
                "unreadable": done.unreadable,
                "oldKeysMayBeDropped": done.is_complete,
            }
        )
        return DONE if done.is_complete else FAILURES
    say(f"Sealed anew: the tokens of {_shops(done.resealed)}. Sealed so already: those of {_shops(done.newest)}.")
    if done.is_complete:
        say("The older keys may be dropped from ENCRYPTION_KEYS, once every process runs with the newest.")
        return DONE
    warn(
        f"None of ENCRYPTION_KEYS opens the token of {', '.join(done.unreadable)}. Drop no key; add the one that "
        "sealed it, or give the token again with `metafield-sync shops add`."
    )
    return FAILURES


def _shops(count: int) -> str:
    return f"{count:,} shop{'' if count == 1 else 's'}"
