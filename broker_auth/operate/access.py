"""Logs commands in to the configured brokers, with a single attempt for each address.

The service decides which account a connection is placed in, like for any other connection:

* system account: the system user with its password (docs/policy.md#2-the-system-user). That needs verified TLS, so it
  works on the fleet's listener; on a listener without client certificates (single) it also needs a client
  token with ``system_user`` or ``org_admin``. An edge admits no system user.
* fleet account: the service's own certificate (rule 4), or a client token (rule 3).
* provisioning account: the user ``provisioner`` (rule 1), with the certificate of a provisioner.

The break-glass nkey reaches the system account of every broker without the service (fact 4). So does the kick user's,
to list and end connections only.
"""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nats.aio.client import Client

from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import BUCKET_INBOX
from broker_auth.natsio.tls import TLSFiles, tls_context
from broker_auth.operate.logins import AccessError, Login, Proof, connect
from broker_auth.policy.permissions import KICK_INBOX
from broker_auth.policy.rules import PROVISIONER
from broker_auth.secret import Secret
from broker_auth.settings.model import BrokerSettings, Role, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Access to the brokers of a configuration.

    Attributes:
        break_glass: seeds of break-glass users, to bypass the service. Each is presented only to the brokers of its
            zone, because a compromised edge could relay the signature.
        kick: seeds of kick users, presented to the brokers of their zones only.
        proof: a client token, where the configured credentials are not sufficient.
        certificate: client certificate instead of the configured one, with :attr:`key`.
    """

    settings: Settings
    break_glass: tuple[Secret, ...] = ()
    kick: tuple[Secret, ...] = ()
    proof: Proof | None = None
    certificate: Path | None = None
    key: Path | None = None

    def tls(self, broker: BrokerSettings) -> ssl.SSLContext | None:
        """Return the TLS context for a broker."""
        files = broker.tls
        if self.certificate is not None:
            files = TLSFiles(ca=files.ca, certificate=self.certificate, key=self.key)
        return tls_context(files)

    def tls_of_node(self, broker: BrokerSettings) -> ssl.SSLContext | None:
        """Return the TLS context of an unprovisioned node, which has no certificate to present."""
        return tls_context(TLSFiles(ca=broker.tls.ca))

    async def system(self, broker: BrokerSettings) -> Client:
        """Connect to the system account.

        Raises:
            AccessError: the broker is unreachable or refuses, or no configured credential is sufficient.
        """
        seed = self.break_glass_of(broker)
        if seed is not None:
            return await self.connect(broker, Login(what="the break-glass user", nkey_seed=seed))
        settings = self.settings
        if settings.system_user is None:
            raise AccessError(
                f"{settings.path}: plugin.choria.network.system.user is not set, so the system account of "
                f"{broker.name} is not accessible; set it, or use --break-glass SEED"
            )
        if broker.role.is_outpost:
            raise AccessError(
                f"broker {broker.name} has the role {broker.role}: passwords are never sent to it; for its system "
                f"account use --break-glass with the seed of zone {broker.zone}"
            )
        if broker.role is Role.SINGLE and self.proof is None:
            raise AccessError(
                f"broker {broker.name} does not request a certificate; for its system account use --break-glass SEED, "
                "or --token FILE --seed FILE with the permission system_user"
            )
        return await self.connect(broker, self.system_login())

    async def ender(self, broker: BrokerSettings) -> Client:
        """Connect to the system account to list and end connections, as the kick user if its seed is available.

        Raises:
            AccessError: as of :meth:`system`; that of the kick user if no other credential is sufficient either.
        """
        seed = _seed_of(self.kick, self.settings.zone(broker.zone).kick_nkey)
        if seed is None or self.break_glass_of(broker) is not None:
            return await self.system(broker)
        try:
            return await self.connect(broker, Login(what="the kick user", nkey_seed=seed, inbox=KICK_INBOX))
        except AccessError as error:
            try:
                return await self.system(broker)  # the broker's configuration may be older than kick_nkey
            except AccessError:
                raise error from None

    def break_glass_of(self, broker: BrokerSettings) -> Secret | None:
        """Return the seed of the break-glass user of a broker's zone, if available."""
        return _seed_of(self.break_glass, self.settings.zone(broker.zone).break_glass_nkey)

    def system_login(self) -> Login:
        """Return the login of the configured system user."""
        user = self.settings.system_user or ""
        login = Login(what=f"the system user {user}", user=user, password=self.settings.system_passwords[0])
        return self._with_proof(login)

    async def fleet(self, broker: BrokerSettings) -> Client:
        """Connect to the fleet's account.

        Raises:
            AccessError: the broker is unreachable or refuses.
        """
        return await self.connect(broker, self._with_proof(Login(what="a member of the fleet")))

    async def provisioner(self, broker: BrokerSettings) -> Client:
        """Connect to the provisioning account.

        Raises:
            AccessError: no provisioner is configured, or the broker is unreachable or refuses.
        """
        passwords = self.settings.provisioning.client_passwords
        if not passwords:
            raise AccessError(
                f"{self.settings.path}: plugin.choria.network.provisioning.client_password is not set; set it"
            )
        login = Login(what="the user provisioner", user=PROVISIONER, password=passwords[0])
        return await self.connect(broker, self._with_proof(login))

    async def callout(self, broker: BrokerSettings) -> Client:
        """Connect as the service itself, to the callout account.

        Raises:
            AccessError: the broker is unreachable or does not know the service's nkey, or its seed is not here.
        """
        seed = self.service_seed(broker)
        return await self.connect(broker, Login(what="the service's nkey user", nkey_seed=seed, inbox=BUCKET_INBOX))

    def service_seed(self, broker: BrokerSettings) -> Secret:
        """Return the seed of the service's user at a broker.

        Raises:
            AccessError: it is not here.
        """
        seed = self.settings.zone(broker.zone).nkey_seed
        if seed is None:  # without it this would be a login to the fleet, where members make streams of any name
            raise AccessError(
                f"the seed of the service's user at broker {broker.name} is not on this machine; run this where the "
                "service runs"
            )
        return seed

    async def connect(self, broker: BrokerSettings, login: Login) -> Client:
        """Try each of the broker's URLs once, until a login succeeds.

        Raises:
            AccessError: all attempts failed.
        """
        failures: dict[str, list[str]] = {}
        for url in broker.urls:
            try:
                return await connect(url, login, self.tls(broker))
            except AccessError as error:
                failures.setdefault(str(error), []).append(url)
        remedy = "see `broker-auth why` and `broker-auth doctor`, or use --break-glass SEED if no service runs"
        if self.settings.issuer_mode and self.proof is None and login.nkey_seed is None:
            remedy = f"use --token FILE --seed FILE of a client with the permission for it; {remedy}"
        where = "; ".join(f"{', '.join(urls)}: {failure}" for failure, urls in failures.items())
        raise AccessError(f"cannot log in to broker {broker.name} as {login.what}: {where}; {remedy}")

    def _with_proof(self, login: Login) -> Login:
        proof = self.proof
        if proof is None:
            return login
        return dataclasses.replace(login, token=proof.token, token_seed=proof.seed, inbox=proof.inbox)


def _seed_of(seeds: Iterable[Secret], nkey: str | None) -> Secret | None:
    return next((seed for seed in seeds if public_nkey(seed.reveal()) == nkey), None)
