"""One sandbox for the tests that need no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hone.sandbox import Limits, Sandbox


@pytest.fixture(scope="session")
def sandbox(isolation: None) -> Iterator[Sandbox]:
    with Sandbox(Limits(seconds=4), workers=2) as opened:
        yield opened
