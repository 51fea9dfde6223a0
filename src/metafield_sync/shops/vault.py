"""Access tokens at rest: encrypted with MultiFernet, so that keys can be rotated, and never in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from collections.abc import Sequence


NEW_KEY = "Make a key with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"


class TokenUnreadable(AppError):
    """A stored access token cannot be decrypted with the keys at hand."""

    code = "token_unreadable"
    status = 500
    exit_status = 2


class Vault:
    """Turns an access token into what may be stored, and back. `keys` are Fernet keys, newest first."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._newest = Fernet(keys[0]) if keys else None
        self._fernet = MultiFernet([Fernet(key) for key in keys]) if keys else None

    def seal(self, token: str) -> str:
        """Encrypt a token with the newest key.

        Raises:
            TokenUnreadable: there is no key to encrypt with.
        """
        if self._fernet is None:
            raise TokenUnreadable(
                f"ENCRYPTION_KEYS is not set, and an access token is never stored in the clear. {NEW_KEY}"
            )
        return self._fernet.encrypt(token.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypt a stored token, whichever of the keys sealed it.

        Raises:
            TokenUnreadable: none of them did.
        """
        if self._fernet is None:
            raise TokenUnreadable(
                "ENCRYPTION_KEYS is not set, but an access token is stored. Set the key that sealed it."
            )
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise TokenUnreadable(
                "A stored access token cannot be decrypted: ENCRYPTION_KEYS does not hold the key that sealed it. "
                "Add that key to the list, or give the token again with `metafield-sync shops add`."
            ) from None

    def reseal(self, sealed: str) -> str | None:
        """The same token, sealed with the newest key; None if it is already.

        Raises:
            TokenUnreadable: none of the keys sealed it.
        """
        token = self.open(sealed)
        assert self._newest is not None, "it was opened by one of the keys"  # noqa: S101 - the line above
        try:
            self._newest.decrypt(sealed.encode())
        except InvalidToken:
            return self.seal(token)
        return None
