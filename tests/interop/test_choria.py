"""``choria jwt`` and ``broker-auth token``: each accepts the tokens of the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.tokens import ORGANIZATION
from tests.interop.choria_program import Choria, ChoriaRefused
from tests.interop.keyfiles import KeyFiles

EVERY_SERVER_FLAG = ("--submission", "--stream-user", "--service", "--governor")
EVERY_CLIENT_FLAG = (
    "--stream-admin",
    "--stream-user",
    "--event-viewer",
    "--elections-user",
    "--service",
    "--system",
    "--auth-delegation",
    "--signed-fleet-management",
    "--org-admin",
    "--server-provisioner",
    "--governor",
)
PROVISIONING = ("--token", "s3cret", "--urls", "nats://127.0.0.1:4222", "--default", "--protocol-v2")


@pytest.mark.parametrize("maker", ["choria", "broker-auth"])
def test_keys(choria: Choria, tmp_path: Path, maker: str) -> None:
    seed, public = tmp_path / "made.seed", tmp_path / "made.public"
    if maker == "choria":
        choria.run("jwt", "keys", str(seed), str(public))
    else:
        ours("token", "keys", str(seed), str(public))
    shown = public.read_text(encoding="ascii")
    assert choria.run("jwt", "keys", str(seed), "--show-public").split()[-1] == shown
    assert shown in ours("token", "keys", str(seed), "--show-public")
    assert seed.stat().st_size == public.stat().st_size == 64  # Choria does not accept line ends in these files


@pytest.mark.parametrize("flags", [(), EVERY_SERVER_FLAG], ids=["plain", "every permission"])
def test_server(choria: Choria, keys: KeyFiles, tmp_path: Path, flags: tuple[str, ...]) -> None:
    theirs, made = tmp_path / "theirs.jwt", tmp_path / "ours.jwt"
    rest = ("node1.example.net", keys.subject.hex, str(keys.org.private), *flags)
    choria.run("jwt", "server", str(theirs), *rest)
    ours("token", "server", str(made), *rest)
    same_claims(choria, keys, theirs, made)


@pytest.mark.parametrize("flags", [(), EVERY_CLIENT_FLAG, ("--issuer",)], ids=["plain", "every permission", "issuer"])
def test_client(choria: Choria, keys: KeyFiles, tmp_path: Path, flags: tuple[str, ...]) -> None:
    theirs, made = tmp_path / "theirs.jwt", tmp_path / "ours.jwt"
    subjects = ("--publish", "a.>", "--subscribe", "b.*", "--agents", "rpcutil")
    rest = ("up=alice", str(keys.org.private), "--public-key", keys.subject.hex, *subjects, *flags)
    choria.run("jwt", "client", str(theirs), *rest)
    ours("token", "client", str(made), *rest)
    same_claims(choria, keys, theirs, made)


@pytest.mark.parametrize("signer", ["rsa", "org"])
def test_provisioning(choria: Choria, keys: KeyFiles, tmp_path: Path, signer: str) -> None:
    key = getattr(keys, signer)
    theirs, made = tmp_path / "theirs.jwt", tmp_path / "ours.jwt"
    # Validity in hours, because only some releases of Choria support years.
    rest = (str(key.private), *PROVISIONING, "--extensions", '{"location": "lab"}', "--validity", "24h")
    choria.run("jwt", "provisioning", str(theirs), *rest)
    ours("token", "provisioning", str(made), *rest)
    ours("token", "check", str(theirs), "--signer", str(key.public))
    assert steady(choria.claims(theirs, key.public)) == steady(choria.claims(made, key.public))


def test_issued_by_a_chain_issuer(choria: Choria, keys: KeyFiles, tmp_path: Path) -> None:
    """Choria's login service issues such tokens, not its commands; these must accept our tokens."""
    issuer, made = tmp_path / "issuer.jwt", tmp_path / "made.jwt"
    public = ("--public-key", keys.creator.hex)
    choria.run(
        "jwt", "client", str(issuer), "aaa=login", str(keys.org.private), *public, "--issuer", "--validity", "2h"
    )
    args = ("--public-key", keys.subject.hex, "--chain-issuer-token", str(issuer))
    ours("token", "client", str(made), "up=alice", str(keys.creator.private), *args)
    assert choria.claims(made, keys.org.public)["iss"].startswith("C-")
    choria.check(made, "--issuer", keys.org.hex, "--no-chain-issuer")
    choria.check(issuer, "--issuer", keys.org.hex, "--chain-issuer")


def same_claims(choria: Choria, keys: KeyFiles, theirs: Path, made: Path) -> None:
    """Check that both tokens verify on both sides, with only the right key, and have the same claims."""
    for token in (theirs, made):
        ours("token", "check", str(token), "--issuer", f"{ORGANIZATION}={keys.org.hex}")
        choria.check(token, "--issuer", keys.org.hex)
        with pytest.raises(ChoriaRefused):
            choria.claims(token, keys.foreign.public)
        with pytest.raises(subprocess.CalledProcessError):
            ours("token", "check", str(token), "--issuer", f"{ORGANIZATION}={keys.foreign.hex}")
    assert steady(choria.claims(theirs, keys.org.public)) == steady(choria.claims(made, keys.org.public))


def steady(claims: dict[str, object]) -> dict[str, object]:
    """Return the claims without those that differ between any two tokens, and with the validity instead of times."""
    times = {name: claims[name] for name in ("iat", "nbf", "exp")}
    assert all(isinstance(time, int) for time in times.values())
    rest = {name: value for name, value in claims.items() if name not in {*times, "jti", "tcs"}}
    return rest | {"validity": int(str(times["exp"])) - int(str(times["iat"]))}


def ours(*arguments: str) -> str:
    """Run ``broker-auth`` and return its output, including standard error."""
    command = [sys.executable, "-m", "broker_auth", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr
