"""Forms of the embedded page: what proves that a form was shown to the staff of a shop.

Inside the admin's frame there are no cookies to rely on, and an ID token lives a minute, less than people take to
decide. So a page that was opened with a valid one carries a ticket sealed for that shop and member of staff, good for
an hour; nobody else has seen it, so nobody else's page can send the form.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from metafield_sync.errors import AppError

TICKET_S = 3_600
TICKET_CHARS_MAX = 1_000
KEY_BYTES = 32
PURPOSE = b"metafield-sync: forms of the embedded page"


class FormLapsed(AppError):
    """The form was not shown by us, or too long ago."""

    code = "form_lapsed"
    status = 403


@dataclass(frozen=True, slots=True)
class Ticket:
    """For whom a form was shown: a shop, and the member of its staff by Shopify's user id."""

    shop_domain: str
    user_id: int


class Forms:
    """Seals and opens tickets. `secret` is the app's client secret; its rotation ends the tickets shown before."""

    def __init__(self, secret: str) -> None:
        key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=PURPOSE).derive(secret.encode())
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, ticket: Ticket) -> str:
        """The ticket as it stands in a hidden field."""
        return self._fernet.encrypt(json.dumps([ticket.shop_domain, ticket.user_id]).encode()).decode()

    def open(self, text: str) -> Ticket:
        """The ticket that came back.

        Raises:
            FormLapsed: it is none of ours, or older than an hour.
        """
        try:
            shop_domain, user_id = json.loads(self._fernet.decrypt(text[:TICKET_CHARS_MAX].encode(), ttl=TICKET_S))
        except (InvalidToken, ValueError):
            raise FormLapsed("This page was opened too long ago. Open the app again in the Shopify admin.") from None
        return Ticket(shop_domain, user_id)
