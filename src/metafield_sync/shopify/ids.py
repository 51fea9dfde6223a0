"""Shopify's ids: plain integers inside, `gid://shopify/Customer/123` on the wire."""

from __future__ import annotations

import re
from typing import Any

_CUSTOMER_GID = re.compile(r"gid://shopify/Customer/([1-9][0-9]{0,18})", re.ASCII)
"""Up to 19 digits: legacy ids are unsigned 64-bit integers in the published schema, and ours a PostgreSQL
bigint."""


def customer_gid(customer_id: int) -> str:
    """Spell a customer's numeric Shopify id as GraphQL wants it; ValueError unless it is positive."""
    if customer_id < 1:
        raise ValueError(f"a Shopify customer id is a positive integer, not {customer_id}")
    return f"gid://shopify/Customer/{customer_id}"


def customer_id_of(gid: str) -> int:
    """Read the numeric id out of a customer's gid; ValueError for anything else, other resources too."""
    found = _CUSTOMER_GID.fullmatch(gid)
    if found is None:
        raise ValueError("not the id of a Shopify customer: expected gid://shopify/Customer/ and digits")
    return int(found[1])


def read_customer_id(value: Any) -> int | None:
    """Read a customer's gid out of an answer; None if it is anything else."""
    try:
        return customer_id_of(value) if isinstance(value, str) else None
    except ValueError:
        return None
