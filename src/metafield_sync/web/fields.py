"""The kinds of value that travel in JSON, each with its limits in one place."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, cast
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from metafield_sync.customers.identity import SHOPIFY_ID_MAX
from metafield_sync.ledger.posting import POINTS_MAX

REASON_CHARS_MAX = 100
EXTERNAL_ID_CHARS_MAX = 200
METADATA_BYTES_MAX = 16 * 1024
METADATA_DEPTH_MAX = 32
YEAR_MIN, YEAR_MAX = 1000, 9000

RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")
SHOPIFY_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Document(BaseModel):
    """A JSON document of the interface: camelCase names, and no name that is not known."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("may not hold the character NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair, which is no character") from None
    return value


def _amount(value: int) -> int:
    if value == 0:
        raise PydanticCustomError("amount_zero", "an amount of 0 changes nothing; post what is to be added or deducted")
    if abs(value) > POINTS_MAX:
        raise PydanticCustomError(
            "balance_out_of_range", "must be within ±{most}, as Shopify can show no more", {"most": POINTS_MAX}
        )
    return value


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    _storable_json(value, METADATA_DEPTH_MAX)
    size = len(json.dumps(value, ensure_ascii=False).encode())
    if size > METADATA_BYTES_MAX:
        raise ValueError(f"is {size} bytes of JSON; {METADATA_BYTES_MAX} is the most")
    return value


def _storable_json(value: object, depth_left: int) -> None:
    if depth_left == 0:
        raise ValueError(f"is nested deeper than {METADATA_DEPTH_MAX} levels")
    match value:
        case str():
            _storable(value)
        case float() if not math.isfinite(value):
            raise ValueError("holds a number that JSON does not know")
        case dict():
            for name, item in cast("dict[str, object]", value).items():
                _storable(name)
                _storable_json(item, depth_left - 1)
        case list():
            for item in cast("list[object]", value):
                _storable_json(item, depth_left - 1)
        case _:
            pass


def _is_rfc_3339(value: object) -> object:
    if isinstance(value, str) and RFC_3339.fullmatch(value) is None:
        raise ValueError("must be an RFC 3339 time with its offset, such as 2026-11-22T12:00:00Z")
    if not isinstance(value, str | datetime):
        raise ValueError("must be text: an RFC 3339 time such as 2026-11-22T12:00:00Z")  # noqa: TRY004 - pydantic's
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is too far from the present") from None
    if not YEAR_MIN <= utc.year <= YEAR_MAX:
        raise ValueError("is too far from the present")
    return utc


def _is_uuid_text(value: object) -> object:
    if isinstance(value, UUID) or (isinstance(value, str) and UUID_TEXT.fullmatch(value)):
        return value
    raise PydanticCustomError("malformed_id", "must be a UUID such as 0b5cf5f4-58a6-4d7e-9a55-3f4f4f5d8d10")


def _shopify_id(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError('must be text: the digits of a Shopify customer id, such as "6940095564"')  # noqa: TRY004 - pydantic's
    if SHOPIFY_ID.fullmatch(value) is None or int(value) > SHOPIFY_ID_MAX:
        raise PydanticCustomError("malformed_id", 'must be the digits of a Shopify customer id, such as "6940095564"')
    return value


def rfc_3339(value: datetime) -> str:
    """A time as the interface shows it: UTC, with a Z."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Text = Annotated[StrictStr, AfterValidator(_storable)]
Reason = Annotated[Text, Field(min_length=1, max_length=REASON_CHARS_MAX, examples=["order_paid"])]
ExternalId = Annotated[Text, Field(min_length=1, max_length=EXTERNAL_ID_CHARS_MAX, examples=["order/1001"])]
Amount = Annotated[
    StrictInt,
    AfterValidator(_amount),
    WithJsonSchema(
        {
            "type": "integer",
            "minimum": -POINTS_MAX,
            "maximum": POINTS_MAX,
            "not": {"const": 0},
            "examples": [150],
        }
    ),
]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
CustomerUuid = Annotated[UUID, BeforeValidator(_is_uuid_text), WithJsonSchema({"type": "string", "format": "uuid"})]
ShopifyId = Annotated[
    str,
    BeforeValidator(_shopify_id),
    WithJsonSchema({"type": "string", "pattern": f"^{SHOPIFY_ID.pattern}$", "examples": ["6940095564"]}),
]
Moment = Annotated[
    AwareDatetime,
    BeforeValidator(_is_rfc_3339),
    AfterValidator(_in_utc),
    PlainSerializer(rfc_3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
