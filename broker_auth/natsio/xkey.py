"""Encryption between nats-server and this service: ``xkv1``, a 24 byte nonce, a NaCl box.

Source: nats-io/nkeys ``xkeys.go``. The shared key of each server is computed once and cached.
"""

from __future__ import annotations

import os
from typing import Final

import nacl.bindings
import nacl.exceptions

from broker_auth.cache import BoundedCache
from broker_auth.errors import InputError
from broker_auth.natsio.nkey import NkeyKind, decode_public

VERSION: Final = b"xkv1"
_NONCE_BYTES: Final = nacl.bindings.crypto_box_NONCEBYTES
_MAC_BYTES: Final = 16  # NaCl, Poly1305
_SERVERS: Final = 1024  # cached shared keys


class SealError(Exception):
    """A message was not sealed for this service by the named key."""


class Sealer:
    """A key pair that opens requests sealed by servers, and seals replies."""

    def __init__(self, seed: bytes) -> None:
        """Load the key from the 32 bytes of a curve nkey seed."""
        self._private = seed
        self._shared: BoundedCache[str, bytes] = BoundedCache(_SERVERS)

    def open(self, sealed: bytes, server_xkey: str) -> bytes:
        """Return the message that the server with the public key ``server_xkey`` sealed.

        Raises:
            SealError: the message or the key is malformed, or the message is not authentic.
        """
        if sealed[:4] != VERSION or len(sealed) < 4 + _NONCE_BYTES + _MAC_BYTES:
            raise SealError("not an xkv1 message")
        nonce, box = sealed[4 : 4 + _NONCE_BYTES], sealed[4 + _NONCE_BYTES :]
        try:
            return nacl.bindings.crypto_box_open_afternm(box, nonce, self._key(server_xkey))
        except nacl.exceptions.CryptoError as error:
            raise SealError("not sealed for this service's xkey by the server's") from error

    def seal(self, message: bytes, server_xkey: str) -> bytes:
        """Seal ``message`` for the server with the public key ``server_xkey``.

        Raises:
            SealError: ``server_xkey`` is not a curve key.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return VERSION + nonce + nacl.bindings.crypto_box_afternm(message, nonce, self._key(server_xkey))

    def _key(self, server_xkey: str) -> bytes:
        shared = self._shared.get(server_xkey)
        if shared is None:
            try:
                public = decode_public(server_xkey, NkeyKind.CURVE)
                shared = nacl.bindings.crypto_box_beforenm(public, self._private)
            except (InputError, nacl.exceptions.CryptoError) as error:
                raise SealError("the server's xkey is not a curve nkey") from error
            self._shared.put(server_xkey, shared)
        return shared
