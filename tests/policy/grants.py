"""The fixed permissions of docs/policy.md#permissions, written out."""

from __future__ import annotations

from dataclasses import replace

from tests.policy.table import grant

UNRESTRICTED = grant()

SYSTEM_ACCESS = grant(
    "$SYS.REQ.> $JS.API.SERVER.REMOVE $JS.API.META.LEADER.STEPDOWN",
    "$SYS.ACCOUNT.> $SYS.SERVER.> _INBOX.> *.reply.>",
)

NODE_PUBLISH = """
    choria.lifecycle.event.startup.provision_mode_server choria.lifecycle.event.alive.provision_mode_server
    choria.lifecycle.event.provisioned.provision_mode_server choria.lifecycle.event.upgraded.provision_mode_server
    choria.lifecycle.event.shutdown.provision_mode_server provisioning.reply.> provisioning.registration.>
"""
NODE_AGENTS = """
    provisioning.broadcast.agent.discovery provisioning.broadcast.agent.rpcutil
    provisioning.broadcast.agent.choria_util provisioning.broadcast.agent.choria_provision
"""
NO_QUEUE = frozenset({"> >"})  # a subject and a queue group in one entry
NODE = replace(grant(NODE_PUBLISH, NODE_AGENTS + "provisioning.node.new1.example.net"), no_subscribe=NO_QUEUE)
SHARED_NODE = replace(grant(NODE_PUBLISH, NODE_AGENTS + "provisioning.node.>"), no_subscribe=NO_QUEUE)

DEFAULT_SERVER = grant(
    publish=">",
    no_publish="*.broadcast.agent.> *.broadcast.service.> *.node.> choria.federation.*.federation",
    no_subscribe="*.reply.> choria.federation.> choria.lifecycle.>",
)

_NOT_PUB_SUB = "*.broadcast.> *.node.> *.reply.> choria.federation.> choria.lifecycle.> choria.machine.>"
PUB_SUB = grant(">", ">", _NOT_PUB_SUB, _NOT_PUB_SUB)

# MD5 and SHA-256 of "up=alice", by md5sum and sha256sum
ALICE_MD5 = "9ff94a8781520105e44481be68e5d47f"
ALICE_SHA256 = "e1ad6b0b05c5a18b427127b1919a848fbacc0684487a70c5b19f77371a76b0ab"
ALICE = grant("$SYS.REQ.USER.INFO", f"*.reply.{ALICE_MD5}.> *.reply.{ALICE_SHA256}.>")
ORG_ADMIN = grant(">", ">")

# of "node1.example.net"
NODE1_MD5 = "17bcfb8c80731d07482059628cf13848"
NODE1_SHA256 = "b318f70a3d7e66321e130b643779ca73f4494dad0783add5064b4050e0d54399"
SERVER = grant(
    """
    choria.lifecycle.> choria.machine.transition choria.machine.watcher.>
    mcollective.reply.> mcollective.broadcast.agent.registration choria.federation.mcollective.collective
    """,
    f"""
    mcollective.broadcast.agent.> mcollective.node.node1.example.net
    mcollective.reply.{NODE1_MD5}.> mcollective.reply.{NODE1_SHA256}.>
    """,
)
