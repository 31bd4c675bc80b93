"""Processor seconds of tests by file and by fixture: what to shorten, whatever else the machine does.

    python scripts/times.py tests/cli                  # as pytest, one process; then a table
    python scripts/times.py tests -m "slow or not slow"

Counted is the time of processors, with that of processes that were waited for, so other work does not matter.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

MOST = 15
"""Rows of every table."""


def spent() -> float:
    """Return the processor time of this process and of those that it waited for [s]."""
    return sum(os.times()[:4])


class Times:
    """Notes what every test and every fixture takes; a test has the fixtures that are made for it."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.tests: Counter[str] = Counter()
        self.fixtures: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        start = spent()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid] += spent() - start
            self.files[item.nodeid.partition("::")[0]] += spent() - start

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        start = spent()
        try:
            return (yield)
        finally:
            self.fixtures[f"{fixturedef.baseid}::{fixturedef.argname} ({fixturedef.scope})"] += (
                spent() - start
            )

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        whole = sum(self.files.values())
        terminalreporter.write_line(f"{whole:.1f} s of processors in {len(self.tests)} tests")
        for title in ("files", "tests", "fixtures"):
            terminalreporter.write_sep("-", title)
            for name, seconds in getattr(self, title).most_common(MOST):
                terminalreporter.write_line(f"{seconds:7.1f} s  {name}")


if __name__ == "__main__":
    sys.exit(pytest.main(["-n0", *sys.argv[1:]], plugins=[Times()]))
