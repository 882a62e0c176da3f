"""No secret in anything that is shown, whatever is wrong around it."""

from __future__ import annotations

import pytest

from broker_auth.errors import ConfigurationError
from broker_auth.natsio.nkey import NkeyKind, generate_seed
from broker_auth.settings.load import check, load
from tests.settings.builder import CHORIA, PASSWORD, SYSTEM_PASSWORD, Directory, P

SEED = generate_seed(NkeyKind.USER)


def test_settings_and_report_show_no_secret(directory: Directory) -> None:
    directory.set({f"{P}provisioning.previous_client_password": "hunter2-previous"})
    report = directory.check()
    assert report.settings is not None
    seeds = [(directory.path / f"{name}.seed").read_text().strip() for name in ("user", "account", "curve")]
    for secret in (PASSWORD, SYSTEM_PASSWORD, "hunter2", *seeds):
        for text in (repr(report), str(report), repr(report.settings), str(report.settings)):
            assert secret not in text


MISPLACED = {
    "seed as path": {f"{P}nkey_seed_file": SEED},
    "seed in a list of paths": {f"{CHORIA}provisioning.signer_cert": SEED},
    "seed as break-glass key": {f"{P}break_glass_nkey": SEED},
    "password under a misspelt key": {f"{P}system.pasword": SEED},
    "password in a URL": {f"{P}broker.default.urls": f"tls://me:{SEED}@127.0.0.1"},
    "password in a route": {f"{P}broker.default.server.cluster.routes": f"tls://{SEED}@127.0.0.1"},
    "password in the key": {f"{CHORIA}system.password:{SEED}": "x"},
    "password in one of our keys": {f"{P}system.password {SEED}": "x"},
}


@pytest.mark.parametrize("change", MISPLACED.values(), ids=MISPLACED)
def test_a_misplaced_secret_is_not_repeated(directory: Directory, change: dict[str, str]) -> None:
    directory.set(change)
    report = directory.check()
    found = (*report.problems, *report.warnings)
    assert found
    assert SEED[4:] not in repr(report)
    assert SEED[4:] not in "".join(map(str, found))


def test_a_line_without_separator_is_not_repeated(directory: Directory) -> None:
    path = directory.save()
    directory.write("broker.conf", path.read_text() + f"{CHORIA}system.password {SEED}\n")
    report = check(path, {})
    (warning,) = report.warnings
    assert SEED not in str(warning)


@pytest.mark.parametrize(
    "content",
    [SEED[:-1], SEED + SEED, SEED.lower(), "hunter2-in-the-wrong-file"],
    ids=["cut short", "twice", "lower case", "a password"],
)
def test_a_broken_seed_file_is_not_repeated(directory: Directory, content: str) -> None:
    directory.write("user.seed", content)
    path = directory.save()
    with pytest.raises(ConfigurationError) as caught:
        load(path, {}, serving=True)
    assert content not in str(caught.value)
    assert content not in repr(caught.value.problems)
