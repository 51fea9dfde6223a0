"""Staged uploads: the places the API prepares for files, and the form or address that opens each.

In reality they are in Google's storage. Names, order and the policy are as recorded (API 2026-04); the signatures
are drawn, not computed, and compared all the same. `https://shopify-staged-uploads.storage.googleapis.com/` is
`{origin}/_uploads/` here.
"""

import base64
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

UPLOADS_PATH = "/_uploads/"
BUCKET = "shopify-staged-uploads"
POST_VALID_S = 24 * 60 * 60
PUT_VALID_S = 7 * 24 * 60 * 60
MEBIBYTE = 1024 * 1024
UPLOAD_BYTES_MAX = 100 * MEBIBYTE

_XML = "<?xml version='1.0' encoding='UTF-8'?>"
_SIGNATURE_BYTES = 256
_ALGORITHM = "GOOG4-RSA-SHA256"
# Fields a form may have beside those of its policy.
_UNSIGNED = frozenset({"file", "policy", "x-goog-signature"})


class UploadMethod(StrEnum):
    """How a file is sent: as the last field of a form, or as the body of a PUT to a signed address."""

    POST = "POST"
    PUT = "PUT"


class RefusedByStorageError(Exception):
    """The storage does not do what is asked: an HTTP status, a code and a message, answered as XML.

    The wording is that of Google's XML API as far as it is known, which is not in every case; clients have only the
    status and the code to go by.
    """

    def __init__(self, status: int, code: str, message: str, details: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details

    def as_xml(self) -> str:
        """The body of the answer."""
        details = f"<Details>{escape(self.details)}</Details>" if self.details else ""
        return f"{_XML}<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message>{details}</Error>"


@dataclass(frozen=True, slots=True)
class Target:
    """A place for one file.

    Attributes:
        shop: domain of the shop it was prepared for.
        key: its name in the storage, which `bulkOperationRunMutation` takes as `stagedUploadPath`.
        method: how the file is sent.
        url: where to.
        parameters: names and values; for a POST the form fields, in the order to send them in.
        signature: what the form or the address must show.
        expires_s: until when, seconds since 1970.
        bytes_max: the largest file its policy lets in. Only a form has a policy.
    """

    shop: str
    key: str
    method: UploadMethod
    url: str
    parameters: tuple[tuple[str, str], ...]
    signature: str = field(repr=False)
    expires_s: int
    bytes_max: int

    def check_form(self, fields: Mapping[str, str], now_s: int) -> None:
        """Compare the fields that came before the file with the policy. Raises RefusedByStorageError."""
        wanted = dict(self.parameters)
        if fields.get("x-goog-signature") != self.signature or fields.get("policy") != wanted["policy"]:
            message = "Access denied. The signature is missing, or is not that of the policy."
            raise RefusedByStorageError(HTTPStatus.FORBIDDEN, "SignatureDoesNotMatch", message)
        self._check_time(now_s)
        for name, value in wanted.items():
            if fields.get(name) != value:
                told = "is missing, or came after the file" if name not in fields else "is not as signed"
                raise _against_policy(f"{name} {told}")
        unknown = fields.keys() - wanted.keys() - _UNSIGNED
        if unknown:
            raise _against_policy(f"Policy did not reference these fields: {', '.join(sorted(unknown))}")

    def check_size(self, size: int) -> None:
        """Compare the file's size in bytes with the policy. Raises RefusedByStorageError."""
        if size > self.bytes_max:
            message = "Your proposed upload is larger than the maximum object size specified in your Policy Document."
            details = "Content-length exceeds upper bound on range"
            raise RefusedByStorageError(HTTPStatus.BAD_REQUEST, "EntityTooLarge", message, details)
        if size < 1:
            message = "Your proposed upload is smaller than the minimum object size specified in your Policy Document."
            details = "Content-length smaller than lower bound on range"
            raise RefusedByStorageError(HTTPStatus.BAD_REQUEST, "EntityTooSmall", message, details)

    def check_address(self, query: Mapping[str, str], now_s: int) -> None:
        """Compare the query of a PUT's address with what was signed. Raises RefusedByStorageError."""
        check_signature(query.get("X-Goog-Signature"), self.signature)
        self._check_time(now_s)

    def _check_time(self, now_s: int) -> None:
        if now_s >= self.expires_s:
            raise expired()


def check_signature(given: str | None, signed: str) -> None:
    """Compare signatures. Raises RefusedByStorageError."""
    if given is None or not secrets.compare_digest(given.encode(), signed.encode()):
        message = "Access denied. The request signature we calculated does not match the signature you provided."
        raise RefusedByStorageError(HTTPStatus.FORBIDDEN, "SignatureDoesNotMatch", message)


def expired() -> RefusedByStorageError:
    """The refusal of an address or a form that is too old."""
    message = "The provided token has expired."
    return RefusedByStorageError(HTTPStatus.BAD_REQUEST, "ExpiredToken", message)


def draw_signature() -> str:
    """A new signature: 256 bytes in hex, as recorded."""
    return secrets.token_hex(_SIGNATURE_BYTES)


def post_target(origin: str, shop: tuple[str, int], filename: str, mime_type: str, now_s: int, limit: int) -> Target:
    """Prepare a place that takes a form.

    Args:
        origin: of this server.
        shop: its domain and number.
        filename: last part of the key.
        mime_type: what the file is.
        now_s: the time, seconds since 1970.
        limit: bytes of the largest file the policy lets in.
    """
    domain, number = shop
    key, signature = _key(number, filename), draw_signature()
    conditions: list[tuple[str, str]] = [
        ("Content-Type", mime_type),
        ("success_action_status", "201"),
        ("acl", "private"),
        ("key", key),
        ("x-goog-date", _stamp(now_s)),
        ("x-goog-credential", _credential(now_s)),
        ("x-goog-algorithm", _ALGORITHM),
    ]
    policy = {
        "conditions": [
            *({name: value} for name, value in conditions[:3]),
            ["content-length-range", 1, limit],
            {"bucket": BUCKET},
            *({name: value} for name, value in conditions[3:]),
        ],
        "expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s + POST_VALID_S)),
    }
    text = json.dumps(policy, separators=(",", ":")).replace("/", "\\/")
    parameters = (*conditions, ("x-goog-signature", signature), ("policy", base64.b64encode(text.encode()).decode()))
    url = f"{origin}{UPLOADS_PATH}"
    return Target(domain, key, UploadMethod.POST, url, parameters, signature, now_s + POST_VALID_S, limit)


def put_target(origin: str, shop: tuple[str, int], filename: str, mime_type: str, now_s: int, limit: int) -> Target:
    """Prepare a place that takes a PUT; arguments as of `post_target`. Nothing limits the file's size there."""
    domain, number = shop
    key, signature = _key(number, filename), draw_signature()
    signed = {
        "X-Goog-Algorithm": _ALGORITHM,
        "X-Goog-Credential": _credential(now_s),
        "X-Goog-Date": _stamp(now_s),
        "X-Goog-Expires": str(PUT_VALID_S),
        "X-Goog-SignedHeaders": "host",
        "X-Goog-Signature": signature,
    }
    url = f"{origin}{UPLOADS_PATH}{quote(key)}?{urlencode(signed)}"
    parameters = (("content_type", mime_type), ("acl", "private"))
    return Target(domain, key, UploadMethod.PUT, url, parameters, signature, now_s + PUT_VALID_S, limit)


def post_response(target: Target, etag: str) -> str:
    """What the storage answers to a form that it took (recorded), at status 201."""
    location = escape(f"{target.url}{quote(target.key)}")
    key = escape(target.key)
    return (
        f"{_XML}<PostResponse><Location>{location}</Location><Bucket>{BUCKET}</Bucket><Key>{key}</Key>"
        f'<ETag>"{etag}"</ETag></PostResponse>'
    )


def _key(shop: int, filename: str) -> str:
    return f"tmp/{shop}/bulk/{uuid.uuid4()}/{filename}"


def _stamp(now_s: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))


def _credential(now_s: int) -> str:
    day = time.strftime("%Y%m%d", time.gmtime(now_s))
    return f"merchant-assets@devstore.iam.gserviceaccount.com/{day}/auto/storage/goog4_request"


def _against_policy(details: str) -> RefusedByStorageError:
    message = "Access denied. The content of the form does not meet the conditions specified in the policy document."
    return RefusedByStorageError(HTTPStatus.FORBIDDEN, "AccessDenied", message, details)
