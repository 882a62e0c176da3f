"""nats-server versions: the oldest supported one, and known defects that affect this deployment.

Source: the project's security advisories (advisories.nats.io, and its GitHub advisories).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

Version = tuple[int, int, int]

OLDEST: Final[Version] = (2, 12, 7)  # the oldest without a defect that breaks the guarantees of docs/security.md
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """A known defect.

    Attributes:
        fixed: the first fixed version of each release line; later lines never had it.
        since: the first version that has it.
        breaks: whether a deployment with the rendered configuration is vulnerable.
    """

    name: str
    what: str
    fixed: tuple[Version, ...]
    since: Version = (0, 0, 0)
    breaks: bool = True

    def affects(self, version: Version) -> bool:
        """Return whether this version has the defect: release lines older than the fixed ones do, newer ones do not."""
        line = next((fixed for fixed in self.fixed if fixed[:2] == version[:2]), None)
        return self.since <= version < (line or min(self.fixed))


DEFECTS: Final = (
    Defect(
        name="CVE-2025-30215",
        what="some JetStream administration is open to other accounts",
        fixed=((2, 10, 27), (2, 11, 1)),
    ),
    Defect(
        name="CVE-2026-33218",
        what="a client of the leaf listener can crash the server before logging in",
        fixed=((2, 11, 15), (2, 12, 6)),
    ),
    Defect(
        name="CVE-2026-33219",
        what="a client of the websocket listener can exhaust memory before logging in",
        fixed=((2, 11, 15), (2, 12, 6)),
    ),
    Defect(
        name="CVE-2026-33249",
        what="a waiting node reaches every other one: traces go to subjects it may not publish",
        fixed=((2, 11, 15), (2, 12, 6)),
        since=(2, 11, 0),
    ),
    Defect(
        name="CVE-2026-33248",
        what="verify_and_map, which the leaf listener uses, can match a crafted certificate subject",
        fixed=((2, 11, 15), (2, 12, 6)),
    ),
    Defect(
        name="CVE-2026-58253",
        what="with no_auth_user, leaf and route listeners can be entered without logging in",
        fixed=((2, 11, 16), (2, 12, 7), (2, 14, 0)),
        breaks=False,
    ),
)


def parse_version(text: str) -> Version | None:
    """Parse ``2.12.6`` or ``v2.12.6-RC.1`` into numbers; None if the text is not a version."""
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def known_defects(version: Version) -> tuple[Defect, ...]:
    """Return the known defects of this version."""
    return tuple(defect for defect in DEFECTS if defect.affects(version))


def unsafe(text: str) -> str:
    """Return why a server of this version does not enforce the policy; empty if it does or the version is unknown."""
    version = parse_version(text)
    if version is None:
        return ""
    names = [f"{defect.what} ({defect.name})" for defect in known_defects(version) if defect.breaks]
    return "; ".join(names)
