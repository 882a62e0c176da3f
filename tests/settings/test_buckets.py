"""The bucket of revocations: what it needs is reported at start, all at once."""

from __future__ import annotations

import pytest

from tests.settings.builder import Directory, P

BUCKET = f"{P}revocations_bucket"
COMPLETE: dict[str, str | None] = {
    BUCKET: "true",
    f"{P}revocations": "revoked.json",
    f"{P}pid_file": "pid",
    f"{P}broker.default.server.store_dir": "/srv/streams",
}


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, []),
        ({BUCKET: "false", f"{P}pid_file": None}, []),
        ({f"{P}pid_file": None}, ["pid_file is not"]),
        ({f"{P}revocations": None}, ["revocations is not"]),
        ({f"{P}broker.default.server.store_dir": None}, ["has no JetStream"]),
        ({f"{P}broker.default.role": "edge"}, ["all are edges and gates"]),
        ({f"{P}fleet.auth": "static"}, ["decide by themselves"]),
        ({f"{P}revocations": None, f"{P}pid_file": None}, ["revocations is not", "pid_file is not"]),
    ],
)
def test_missing_keys_are_problems_of_the_bucket(
    directory: Directory, changes: dict[str, str | None], missing: list[str]
) -> None:
    directory.write("revoked.json", '{"version":1,"revocations":[]}')
    directory.set(COMPLETE | changes)
    problems = [problem.what for problem in directory.check().problems if problem.key == BUCKET]
    assert len(problems) == len(missing)
    assert all(text in what for text, what in zip(missing, problems, strict=True))


def test_path_that_is_too_long_for_a_socket_beside_it_is_a_problem(directory: Directory) -> None:
    key = f"{P}revocations"
    for length, count in ((92, 0), (93, 1)):
        directory.set(COMPLETE | {key: "/" + "x" * (length - 1)})
        problems = [problem for problem in directory.check().problems if "socket" in problem.what]
        assert [problem.key for problem in problems] == [key] * count
        assert all("100 bytes at most" in problem.what for problem in problems)
    directory.set(COMPLETE | {key: "/" + "x" * 200, BUCKET: "false"})
    assert not [problem for problem in directory.check().problems if "socket" in problem.what]


@pytest.mark.parametrize(("output", "count"), [("log", 1), ("stdout, nats:audit", 1), ("log, file:audit.json", 0)])
def test_records_in_no_file_are_warned_of(directory: Directory, output: str, count: int) -> None:
    directory.write("revoked.json", '{"version":1,"revocations":[]}')
    directory.set(COMPLETE | {f"{P}audit.output": output})
    warnings = [warning.what for warning in directory.check().warnings if warning.key == BUCKET]
    assert len(warnings) == count
    assert all("names no file" in what for what in warnings)
