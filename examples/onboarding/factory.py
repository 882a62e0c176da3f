"""The factory: creates a device and adds it to the inventory, for a deployment of `broker-auth init --dev-pki`.

    python factory.py ./try node1.example.net

It creates `./try/nodes/node1.example.net` for `node.py`, with the token in `./try/provisioning.jwt`, and adds a line to
the inventory in `./try/provisioner`. The first call creates that directory, with the files that `provisioner.py` needs.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
from pathlib import Path

from inventory import LONGEST, is_name

from broker_auth.errors import BrokerAuthError
from broker_auth.files.writing import write_private


def prepare_provisioner(deployment: Path, directory: Path) -> None:
    """Give a provisioner its certificate, the password, and the CA that signs nodes' certificates."""
    pki = deployment / "pki"
    directory.mkdir(mode=0o700)
    files = {"ca.pem": "ca.pem"}
    if (pki / "provisioner.pem").exists():  # not in the single topology, in which clients have tokens instead
        files |= {name: name for name in ("provisioner.pem", "provisioner.key")}
        files |= {"ca.pem": "ca.pem", "nodes-ca.pem": "ca.pem", "nodes-ca.key": "ca.key"}
    for name, source in files.items():
        shutil.copy(pki / source, directory / name)
    shutil.copy(deployment / "keys" / "client_password", directory)


def make_device(deployment: Path, identity: str) -> Path:
    """Give a device the CA of the brokers, the provisioning token and a secret, and return its directory."""
    directory, inventory = deployment / "nodes" / identity, deployment / "provisioner" / "inventory"
    if not inventory.parent.exists():
        prepare_provisioner(deployment, inventory.parent)
    directory.mkdir(mode=0o700, parents=True)
    shutil.copy(deployment / "pki" / "ca.pem", directory)
    shutil.copy(deployment / "provisioning.jwt", directory)
    secret = secrets.token_hex(32)
    write_private(directory / "device.secret", f"{secret}\n".encode())
    inventory.touch(mode=0o600)
    with inventory.open("a") as lines:
        lines.write(f"{identity} {secret}\n")
    return directory


def main() -> None:
    """Create one device."""
    parser = argparse.ArgumentParser(description="Create a device, and add it to the provisioner's inventory.")
    parser.add_argument("deployment", type=Path, help="the directory of `broker-auth init --dev-pki`")
    parser.add_argument("identity", help="the device's name")
    arguments = parser.parse_args()
    if not is_name(arguments.identity):  # the provisioner would refuse the whole inventory
        parser.error(f"{arguments.identity!r} is not a name in lower case of at most {LONGEST} characters")
    try:
        print(make_device(arguments.deployment, arguments.identity))
    except (OSError, BrokerAuthError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
