"""The users of a fleet whose servers decide by themselves (docs/static-fleet.md)."""

from __future__ import annotations

from dataclasses import dataclass

from broker_auth.deploy.passwords import hash_password
from broker_auth.policy.rules import PROVISIONER
from broker_auth.secret import Secret
from broker_auth.settings.checks.fleet_auth import STATIC_MEMBER
from broker_auth.settings.model import BrokerSettings, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticUsers:
    """The users in a static fleet's configuration, beside the break-glass user.

    Attributes:
        member: the user that a connection without credentials is given; it has no password.
        provisioner: name and password hash; empty if provisioning is not enabled.
        operator: name and password hash of the system user; empty if there is no system user.
    """

    member: str
    provisioner: dict[str, str]
    operator: dict[str, str]

    @property
    def hold_passwords(self) -> bool:
        """Whether the configuration holds hashes of passwords."""
        return bool(self.provisioner or self.operator)


def static_users(settings: Settings, broker: BrokerSettings) -> StaticUsers | None:
    """Return the users of a broker that decides by itself; None if it asks this service.

    Raises:
        InputError: the library for password hashes is not installed.
    """
    zone = settings.zone(broker.zone)
    if zone.served:
        return None

    def user(name: str, passwords: tuple[Secret, ...]) -> dict[str, str]:
        owner = (name, zone.break_glass_nkey or "", *broker.urls)
        return {"user": name, "password": hash_password(passwords[0], *owner)}

    provisioning = settings.provisioning
    return StaticUsers(
        member=STATIC_MEMBER,
        provisioner=user(PROVISIONER, provisioning.client_passwords) if provisioning.enabled else {},
        operator=user(settings.system_user, settings.system_passwords) if settings.system_user else {},
    )
