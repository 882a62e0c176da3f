"""Contexts of the ``nats`` command: URLs, files and references, and no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker_auth.deploy import contexts
from broker_auth.deploy.init import initialize
from broker_auth.deploy.plan import Edge, OwnFiles, Plan, Topology, missing_options, superfluous_options
from broker_auth.errors import InputError

# Settings that natscontext (jsm.go) reads; it ignores all others.
KNOWN = {"description", "url", "user", "password", "token", "cert", "key", "ca"}
FLEET = ("nats1.example.net", "nats2.example.net")
EDGES = (Edge("eu", "edge.eu.example.net"), Edge("us", "edge.us.example.net"))


def written(plan: Plan) -> dict[str, dict[str, str]]:
    directory = initialize(plan).contexts / "nats/context"
    return {path.stem: json.loads(path.read_text()) for path in directory.iterdir()}


def test_each_user_has_a_context_with_every_url(tmp_path: Path) -> None:
    documents = written(Plan(directory=tmp_path, dev_pki=True, fleet_hosts=FLEET, named_edges=EDGES))
    assert set(documents) == {"member", "provisioner", "operator", "node-eu", "node-us"}
    assert all(set(context) <= KNOWN for context in documents.values())
    fleet = "tls://nats1.example.net:4222,tls://nats2.example.net:4222"
    assert {documents[name]["url"] for name in ("member", "provisioner", "operator")} == {fleet}
    assert documents["node-us"]["url"] == "tls://edge.us.example.net:4223"
    assert (documents["provisioner"]["user"], documents["operator"]["user"]) == ("provisioner", "system")


@pytest.mark.parametrize(
    ("topology", "url"),
    [(Topology.WEBSOCKET, "wss://[2001:db8::7]:4443"), (Topology.SINGLE, "tls://[2001:db8::7]:4222")],
)
def test_node_context_has_the_url_of_the_topology(tmp_path: Path, topology: Topology, url: str) -> None:
    documents = written(Plan(directory=tmp_path, topology=topology, dev_pki=True, hosts=("2001:db8::7",)))
    assert documents["node"]["url"] == url


def test_contexts_name_files_and_contain_no_secret(tmp_path: Path) -> None:
    deployment = initialize(Plan(directory=tmp_path, dev_pki=True))
    text = "".join(path.read_text() for path in deployment.contexts.rglob("*.json"))
    for path in (tmp_path / "keys").rglob("*"):
        if path.is_file() and path.suffix != ".public":
            assert path.read_text() not in text
    for context in map(json.loads, (path.read_text() for path in deployment.contexts.rglob("*.json"))):
        named = [Path(context[key]) for key in ("ca", "cert", "key") if key in context]
        if "password" in context:
            named.append(Path(context["password"].removeprefix("file://")))
        assert all(path.is_absolute() and path.is_file() for path in named)


def test_user_certificates_may_be_on_another_machine(tmp_path: Path) -> None:
    made = initialize(Plan(directory=tmp_path / "made", dev_pki=True)).configuration.parent / "pki"
    files = OwnFiles(
        ca=made / "ca.pem",
        leaf_ca=made / "leaf-ca.pem",
        **{f"{name}_cert": made / f"{name}.pem" for name in ("server", "edge", "leaf", "service")},
        **{f"{name}_key": made / f"{name}.key" for name in ("server", "edge", "leaf", "service")},
    )
    signer = (str(made / "signer.pem"),)
    plan = Plan(directory=tmp_path / "a", hosts=("localhost",), files=files, signer_cert=signer)
    assert set(written(plan)) == {"node"}
    users = {"user_cert": Path("/home/you/{user}.pem"), "user_key": Path("/home/you/{user}.key")}
    full = OwnFiles(**{name: getattr(files, name) for name in OwnFiles.__dataclass_fields__} | users)
    plan = Plan(directory=tmp_path / "b", hosts=("localhost",), files=full, signer_cert=signer)
    documents = written(plan)
    assert set(documents) == {"member", "provisioner", "operator", "node"}
    assert documents["operator"]["key"] == "/home/you/operator.key"


def test_user_certificate_without_key_or_with_development_pki_is_refused() -> None:
    half = OwnFiles(user_cert=Path("a"))
    assert "--user-key" in missing_options(Plan(directory=Path("d"), files=half))
    assert superfluous_options(Plan(directory=Path("d"), dev_pki=True, files=half)) == ["--user-cert"]


def test_existing_contexts_are_not_overwritten_without_force(tmp_path: Path) -> None:
    plan = Plan(directory=tmp_path, dev_pki=True)
    assert set(contexts.file_names(plan)) == {
        f"contexts/nats/context/{name}.json" for name in ("member", "provisioner", "operator", "node")
    }
    path = tmp_path / "contexts/nats/context/member.json"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(InputError, match=r"already contains contexts/nats/context/member\.json"):
        initialize(plan)
    assert path.read_text() == "mine"
