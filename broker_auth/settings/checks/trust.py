"""The trusted keys: signers, organization issuers, and the CAs of verified peers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker_auth.certificates.files import expiry, read_bundle
from broker_auth.errors import InputError
from broker_auth.files.reading import BadValue, read
from broker_auth.settings.checks import certificates as chains
from broker_auth.settings.checks.ignored import choria_ca
from broker_auth.settings.keys import choria, own
from broker_auth.settings.keys.key import Key
from broker_auth.settings.model import KeySource
from broker_auth.settings.source import Source
from broker_auth.tokens.keys import MAX_KEY_FILE_BYTES, VerificationKey, ed25519_key, load_verification_key

_EXCLUDED: Final = (choria.CLIENT_SIGNER_CERT, choria.SERVER_SIGNER_CERT, choria.TRUSTED_SIGNERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustSettings:
    """The part of the settings that this module reads; attributes as in ``Settings``."""

    signers: tuple[KeySource, ...]
    client_signers: tuple[KeySource, ...]
    server_signers: tuple[KeySource, ...]
    issuers: tuple[KeySource, ...]
    client_ca: tuple[Path, ...]
    pub_sub_ca: bool


def issuer_mode(source: Source) -> bool:
    """Return whether organization issuers are configured, even with unusable keys (docs/policy.md#two-modes)."""
    return source.is_set(choria.ISSUER_NAMES)


def trust(source: Source, now: datetime) -> TrustSettings:
    """Read every key and CA once, to check that they can be used."""
    if issuer_mode(source):
        for key in _EXCLUDED:
            if source.is_set(key):
                remedy = f"remove it, or {choria.ISSUER_NAMES.name}"
                source.problem(key, "cannot be combined with organization issuers", remedy)
    return TrustSettings(
        signers=_signers(source, choria.SIGNER_CERT, now),
        client_signers=_signers(source, choria.CLIENT_SIGNER_CERT, now),
        server_signers=_signers(source, choria.SERVER_SIGNER_CERT, now),
        issuers=_issuers(source),
        client_ca=_client_ca(source, now),
        pub_sub_ca=source.is_set(choria.CHORIA_CA),
    )


def _signers(source: Source, key: Key[tuple[KeySource, ...]], now: datetime) -> tuple[KeySource, ...]:
    signers = source.get(key)
    for signer in signers:
        loaded = source.attempt(lambda signer=signer: _load(signer), key)  # type: ignore[misc]
        if loaded is not None:
            _warn_of_signer(source, key, loaded, now)
    return signers


def _load(signer: KeySource) -> VerificationKey:
    try:
        if signer.path is None:
            return ed25519_key(signer.hex or "", signer.name)
        return load_verification_key(read(signer.path, MAX_KEY_FILE_BYTES).data, str(signer.path))
    except BadValue:
        raise
    except InputError as error:
        what, _, remedy = str(error).partition("; ")
        raise BadValue(what, remedy or "give a PEM certificate, a PEM public key, or 64 hex characters") from error


def _warn_of_signer(source: Source, key: Key[tuple[KeySource, ...]], signer: VerificationKey, now: datetime) -> None:
    if signer.not_after is not None and (message := expiry(datetime.fromtimestamp(signer.not_after, UTC), now)):
        source.warning(
            key, f"{signer.name}: {message}; its tokens are still accepted", "renew it, or remove the signer"
        )
    if key is choria.SIGNER_CERT and issuer_mode(source) and signer.kind == "Ed25519":
        source.warning(
            key,
            f"{signer.name} is never used: with organization issuers, they verify every EdDSA token",
            "remove it, or give an RSA or EC signer",
        )


def _issuers(source: Source) -> tuple[KeySource, ...]:
    written = source.get(choria.ISSUER_NAMES)
    names = tuple(dict.fromkeys(written))
    if len(names) < len(written):
        source.problem(choria.ISSUER_NAMES, "names an issuer twice", "name each issuer once")
    issuers = []
    for name in names:
        public = source.get(choria.ISSUER_PUBLIC, name)
        if public is not None:
            issuers.append(KeySource(name=name, hex=public))
        elif not source.is_set(choria.ISSUER_PUBLIC, name):
            missing = choria.ISSUER_PUBLIC.of(name)
            remedy = "write the issuer's public key there"
            source.problem(choria.ISSUER_NAMES, f"lists {name!r}, but {missing} is not set", remedy)
    _warn_of_unnamed(source, names)
    return tuple(issuers)


def _warn_of_unnamed(source: Source, names: tuple[str, ...]) -> None:
    for written, entry in source.entries.items():
        match = choria.ISSUER_PUBLIC.match(written)
        if match is not None and match[1] not in names:
            remedy = f"add {match[1]!r} to {choria.ISSUER_NAMES.name}"
            source.findings.warning(entry.problem("belongs to an issuer that is not listed, and has no effect", remedy))


def client_ca_key(source: Source) -> Key[tuple[Path, ...]] | None:
    """Return the key that names the CAs (docs/policy.md#0-connections-not-served).

    It is ``client_ca``, else Choria's CA, else the file security provider's.
    """
    return next(filter(source.is_set, (own.CLIENT_CA, choria.CHORIA_CA, choria.FILE_CA)), None)


def _client_ca(source: Source, now: datetime) -> tuple[Path, ...]:
    if (key := client_ca_key(source)) is not None:
        paths = source.get(key)
        for path in paths:
            _check_ca(source, key, path, now)
        return paths
    what = "is not set, so any certificate that nats-server verified counts"
    source.warning(own.CLIENT_CA, what, f"name the fleet's CA certificates; {choria_ca(source)}")
    return ()


def _check_ca(source: Source, key: Key[tuple[Path, ...]], path: Path, now: datetime) -> None:
    bundle = source.attempt(lambda: read_bundle(path), key)
    if bundle is not None:
        for doubt in chains.of_authorities(bundle, now):
            source.warning(key, f"{path}: {doubt.what}", doubt.remedy)
