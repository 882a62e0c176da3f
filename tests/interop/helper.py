"""A helper of Choria Provisioner: reads the data of a waiting node and prints the node's configuration.

Run as ``python helper.py SETTINGS``, a JSON file with

* ``pki``: the directory of ``ca.pem`` and ``ca.key``,
* ``middleware``: where the fleet connects,
* ``issuer``: the organization issuer's public key; empty where nodes are known by certificates alone,
* ``certificates``: whether nodes get a certificate.

A node of a fleet without an issuer sends a certificate signing request. Choria Provisioner asks a node for either
that or a token's public key, so beside a token it is handed a private key, which the Provisioner encrypts for it.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = timedelta(days=1)


def main(settings: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return the answer for a node."""
    configuration = {
        "identity": node["identity"],
        "collectives": "mcollective",
        "main_collective": "mcollective",
        "rpcauthorization": "0",
        "plugin.choria.server.provision": "false",  # otherwise the node waits again after its restart
        "plugin.choria.middleware_hosts": settings["middleware"],
    }
    answer = {"defer": False, "msg": "Done", "configuration": configuration}
    if settings["issuer"]:
        configuration |= token_settings(node["ed25519_pubkey"]["directory"], settings)
        answer["server_claims"] = {"permissions": {"streams": True, "submission": True}}
        if settings["certificates"]:
            directory = Path(node["ed25519_pubkey"]["directory"]) / "ssl"
            answer |= handed_pair(node["identity"], settings) | {"ssldir": str(directory)}
            configuration |= certificate_settings("choria", directory)
    else:
        answer |= signed(node["csr"]["csr"], node["identity"], settings)
        configuration |= {"plugin.security.provider": "file"}
        configuration |= certificate_settings("file", Path(node["csr"]["ssldir"]))
    return answer


def token_settings(directory: str, settings: dict[str, Any]) -> dict[str, str]:
    """Return how a node finds the token that the Provisioner signs for it, and the seed that it keeps to itself."""
    return {
        "plugin.security.provider": "choria",
        "plugin.security.choria.ca": str(Path(settings["pki"]) / "ca.pem"),
        "plugin.security.choria.token_file": f"{directory}/server.jwt",
        "plugin.security.choria.seed_file": f"{directory}/server.seed",
        "plugin.security.issuer.names": "choria",
        "plugin.security.issuer.choria.public": settings["issuer"],
    }


def certificate_settings(provider: str, directory: Path) -> dict[str, str]:
    """Return the settings of the files that a node receives."""
    prefix = f"plugin.security.{provider}."
    files = {"certificate": "certificate.pem", "key": "private.pem", "ca": "ca.pem", "cache": "cache"}
    if provider == "choria":
        del files["cache"]
    return {f"{prefix}{key}": str(directory / name) for key, name in files.items()}


def signed(request: str, identity: str, settings: dict[str, Any]) -> dict[str, str]:
    """Sign a node's request for a certificate, if it is for the node's own identity."""
    csr = x509.load_pem_x509_csr(request.encode())
    names = [item.value for item in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not csr.is_signature_valid or names != [identity]:
        raise ValueError(f"the request of {identity} is for {names}, or not signed by its key")
    key = csr.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("Choria's keys are RSA")
    return certified(key, identity, settings)


def handed_pair(identity: str, settings: dict[str, Any]) -> dict[str, str]:
    """Make a private key and its certificate. The Provisioner encrypts the key, which has to be RSA in PKCS #1."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    text = key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
    return certified(key.public_key(), identity, settings) | {"key": text}


def certified(key: rsa.RSAPublicKey, identity: str, settings: dict[str, Any]) -> dict[str, str]:
    """Issue a client certificate for this key and identity."""
    pki = Path(settings["pki"])
    ca_text = (pki / "ca.pem").read_bytes()
    ca = x509.load_pem_x509_certificate(ca_text)
    ca_key = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), password=None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise TypeError("the development CA has an EC key")
    now = datetime.now(UTC)
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity[:64])]))
        .issuer_name(ca.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return {"certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(), "ca": ca_text.decode()}


if __name__ == "__main__":
    try:
        made = main(json.loads(Path(sys.argv[1]).read_text()), json.load(sys.stdin))
    except (KeyError, TypeError, ValueError, OSError) as error:
        made = {"defer": True, "msg": f"{type(error).__name__}: {error}"}  # the provisioner tries the node again
    print(json.dumps(made))
