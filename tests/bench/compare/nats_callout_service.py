"""The same decision by PyPI's nats-callout 0.1.1, with the same token cache, in a separate virtual environment.

``python nats_callout_service.py [--uvloop] URL SERVICE_SEED ISSUER_SEED SIGNER_PEM`` prints ``ready``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import jwt
import nats
import nkeys  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from nats_callout import (  # type: ignore[import-not-found]
    AdaptixEncoder,
    AuthError,
    BaseAuthCalloutService,
)
from nats_callout.claims.user import PubSubPermissions, UserData  # type: ignore[import-not-found]

PUBLISH = ["choria.lifecycle.>", "provisioning.reply.>", "provisioning.registration.>"]
AGENTS = [
    f"provisioning.broadcast.agent.{name}" for name in ("discovery", "rpcutil", "choria_util", "choria_provision")
]


class Encoder(AdaptixEncoder):  # type: ignore[misc]
    """An adapter that sets the key and accepts claims that PyJWT has already parsed."""

    def __init__(self, seed: bytes) -> None:
        super().__init__()
        self.kp = nkeys.from_seed(seed)

    json_loads = staticmethod(lambda parsed: parsed)
    json_dumps = staticmethod(json.dumps)


class Service(BaseAuthCalloutService):  # type: ignore[misc]
    """A callout service that grants the permissions of docs/policy.md#provisioning-node."""

    def __init__(self, seed: bytes, signer: Path) -> None:
        self.nkey_seed = seed
        self.encoder = Encoder(seed)
        self.account = "provisioning"
        key = x509.load_pem_x509_certificate(signer.read_bytes()).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        self._key = key
        self._verified: dict[str, float] = {}

    async def _handle_auth_request_data(self, data):  # type: ignore[no-untyped-def]
        token = data.connect_opts.auth_token
        expires = self._verified.get(token)
        if expires is None:
            expires = jwt.decode(token, self._key, algorithms=["RS256"])["exp"]
            self._verified[token] = expires
        if expires <= time.time():
            raise AuthError("token expired")
        node = f"provisioning.node.{data.connect_opts.name}"
        return UserData(
            pub=PubSubPermissions(allow=PUBLISH),
            sub=PubSubPermissions(allow=[*AGENTS, node]),
            subs=-1,
            data=-1,
            payload=-1,
        )


async def main(url: str, seed: str, service: Service) -> None:
    """Answer until killed."""
    client = await nats.connect(url, nkeys_seed_str=seed)

    async def answer(message):  # type: ignore[no-untyped-def]
        await client.publish(message.reply, (await service(message.data)).encode())

    await client.subscribe("$SYS.REQ.USER.AUTH", queue="broker-auth", cb=answer)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    *options, url, service_seed, issuer_seed, signer = sys.argv[1:]
    serving = main(
        url,
        Path(service_seed).read_text(encoding="ascii").strip(),
        Service(Path(issuer_seed).read_bytes().strip(), Path(signer)),
    )
    if options == ["--uvloop"]:
        import uvloop

        uvloop.run(serving)
    else:
        asyncio.run(serving)
