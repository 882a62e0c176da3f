"""What a valid configuration becomes."""

from __future__ import annotations

from tests.settings.builder import (
    Directory,
)


def test_valid_configuration_has_no_findings(directory: Directory) -> None:
    report = directory.check()
    assert [str(found) for found in (*report.problems, *report.warnings)] == []
    assert report.ok
