"""Encryption between nats-server and this service: ``xkv1``, a 24 byte nonce and a NaCl box.

Source: nats-io/nkeys ``xkeys.go``. The shared key of each server is computed once and remembered.
"""

from __future__ import annotations

import os
from typing import Final

import nacl.bindings
import nacl.exceptions

from broker_auth.cache import BoundedCache
from broker_auth.errors import InputError
from broker_auth.natsio.nkey import Kind, decode_public

VERSION: Final = b"xkv1"
_NONCE_BYTES: Final = nacl.bindings.crypto_box_NONCEBYTES
_MAC_BYTES: Final = 16  # NaCl, Poly1305
_SERVERS: Final = 1024  # shared keys remembered


class SealError(Exception):
    """A message that was not sealed for us by the key it names."""


class Sealer:
    """Opens what servers seal for this service and seals what goes back."""

    def __init__(self, seed: bytes) -> None:
        """``seed`` is the 32 bytes of a curve nkey seed."""
        self._private = seed
        self._shared: BoundedCache[str, bytes] = BoundedCache(_SERVERS)

    def open(self, sealed: bytes, server_xkey: str) -> bytes:
        """What the server with the public key ``server_xkey`` sealed.

        Raises:
            SealError: bad form, bad key, or not authentic.
        """
        if sealed[:4] != VERSION or len(sealed) < 4 + _NONCE_BYTES + _MAC_BYTES:
            raise SealError("not an xkv1 message")
        nonce, box = sealed[4 : 4 + _NONCE_BYTES], sealed[4 + _NONCE_BYTES :]
        try:
            return nacl.bindings.crypto_box_open_afternm(box, nonce, self._key(server_xkey))
        except nacl.exceptions.CryptoError as error:
            raise SealError("not sealed for this service's xkey by the server's") from error

    def seal(self, message: bytes, server_xkey: str) -> bytes:
        """``message`` for the server with the public key ``server_xkey``.

        Raises:
            SealError: that is no curve key.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return VERSION + nonce + nacl.bindings.crypto_box_afternm(message, nonce, self._key(server_xkey))

    def _key(self, server_xkey: str) -> bytes:
        shared = self._shared.get(server_xkey)
        if shared is None:
            try:
                public = decode_public(server_xkey, Kind.CURVE)
                shared = nacl.bindings.crypto_box_beforenm(public, self._private)
            except (InputError, nacl.exceptions.CryptoError) as error:
                raise SealError("the server's xkey is not a curve nkey") from error
            self._shared.put(server_xkey, shared)
        return shared
