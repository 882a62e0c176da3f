"""Devices and their provisioner: the programs of ``examples/onboarding``, on a deployment of this machine."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import Final

from nats.errors import Error as NatsError

from broker_auth.deploy.plan import Topology
from broker_auth.errors import InputError
from broker_auth.files.writing import write_private
from broker_auth.sandbox.client import connect
from broker_auth.sandbox.identities import DAY
from broker_auth.sandbox.program import Program
from broker_auth.sandbox.sandbox import Sandbox

EVENT: Final = "choria.lifecycle.event.startup.provision_mode_server"
_ANSWER_SECONDS: Final = 5.0


def program(name: str) -> Path:
    """Return a program of ``examples/onboarding``: inside the installed package, or in a checkout.

    Raises:
        InputError: it is in neither.
    """
    here = Path(__file__)
    for directory in (here.with_name("onboarding"), here.parents[2] / "examples" / "onboarding"):
        if (directory / name).is_file():
            return directory / name
    raise InputError(f"{name} is not part of this installation; install broker-auth again")


class Factory:
    """A factory that creates the initial files of nodes and a provisioner."""

    def __init__(self, deployment: Sandbox, directory: Path) -> None:
        """Prepare the provisioner of a deployment, with an inventory that is empty."""
        self.deployment, self.directory = deployment, directory
        self.provisioner = directory / "provisioner"
        self.provisioner.mkdir(parents=True, mode=0o700)
        shutil.copy(deployment.ca, self.provisioner / "ca.pem")
        write_private(self.provisioner / "client_password", deployment.credentials("provisioner").password.encode())
        write_private(self.provisioner / "inventory", b"")
        if deployment.topology is Topology.SINGLE:
            self.give_token()
        else:
            for end in ("pem", "key"):
                shutil.copy(deployment.directory / "pki" / f"provisioner.{end}", self.provisioner)
                shutil.copy(deployment.directory / "pki" / f"ca.{end}", self.provisioner / f"nodes-ca.{end}")

    def give_token(self, validity: float = DAY) -> None:
        """Give the provisioner a token that lasts ``validity`` seconds, with which it issues others."""
        token = self.deployment.issuer.chain_issuer("up=provisioner", "provisioner", validity=validity)
        write_private(self.provisioner / "provisioner.jwt", token.token.encode())
        write_private(self.provisioner / "provisioner.seed", token.seed.hex().encode())

    def make(self, identity: str, validity: float = DAY, *, expected: bool = True) -> Path:
        """Return the directory of a device that leaves the factory; put it into the inventory if it is expected."""
        directory, secret = self.directory / identity, secrets.token_hex(32)
        directory.mkdir(mode=0o700)
        shutil.copy(self.deployment.ca, directory / "ca.pem")
        write_private(directory / "device.secret", secret.encode())
        self.give_node_token(directory, validity)
        if expected:
            inventory = self.provisioner / "inventory"
            write_private(inventory, inventory.read_bytes() + f"{identity} {secret}\n".encode())
        return directory

    def give_node_token(self, directory: Path, validity: float = DAY) -> None:
        """Give a device a provisioning token that lasts ``validity`` seconds."""
        token = self.deployment.node_issuer.node_token(urls=(self.deployment.node_url,), validity=validity)
        write_private(directory / "provisioning.jwt", token.encode())

    def start_provisioner(self, *options: object) -> Program:
        """Return the provisioner, to be entered."""
        return Program(program("provisioner.py"), self.deployment.fleet_url, self.provisioner, *options)

    def start_node(self, identity: str) -> Program:
        """Return a device that was made, to be entered."""
        return Program(program("node.py"), identity, self.directory / identity)


async def ask(deployment: Sandbox, identity: str) -> str:
    """Ask a node by its name, as a member of the fleet; ``yes`` if it answers."""
    # A server with a token answers on its collective's replies only.
    client = await connect(
        deployment.fleet_url, "asker", deployment.credentials("fleet"), inbox="mcollective.reply.asker"
    )
    try:
        reply = await client.request(f"mcollective.node.{identity}", b"", timeout=_ANSWER_SECONDS)
    except (NatsError, TimeoutError):
        return "no"
    finally:
        await client.close()
    return "yes" if json.loads(reply.data) == {"identity": identity, "member": True} else "no"
