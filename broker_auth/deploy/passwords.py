"""Password hashes for nats-server's configuration, in the one format that it knows (bcrypt)."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from broker_auth.errors import InputError
from broker_auth.secret import Secret

# 2**10 rounds, some 50 ms of nats-server's time for each login that shows a password, right or wrong.
_COST: Final = 10
_SALT_BYTES: Final = 16
_STANDARD: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_ALPHABET: Final = str.maketrans(_STANDARD, _BCRYPT)


def hash_password(password: Secret, *owner: str) -> str:
    """Return the bcrypt hash of a password, the same each time for the same owner.

    The salt is made of the owner and not at random, so that rendering twice gives the same text and a configuration
    that did not change is not reloaded. It does not depend on the password: a fast hash of that would be a shortcut
    for guessing.

    Args:
        password: at most 72 bytes, which settings have checked.
        owner: public texts that differ between users and between deployments.

    Raises:
        InputError: the library for bcrypt is not installed.
    """
    try:
        import bcrypt
    except ImportError as error:
        remedy = "install it with: pip install 'broker-auth[static]'"
        raise InputError(f"a static fleet needs bcrypt for the hashes of its passwords; {remedy}") from error
    digest = hashlib.sha256("\0".join(("broker-auth", *owner)).encode()).digest()[:_SALT_BYTES]
    salt = base64.b64encode(digest).decode().rstrip("=").translate(_ALPHABET)
    return bcrypt.hashpw(password.reveal().encode(), f"$2a${_COST}${salt}".encode()).decode()
