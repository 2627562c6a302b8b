"""What tests of every folder may ask for."""

from __future__ import annotations

import pytest

from hone.sandbox import ensure_tested
from hone.types import HoneError


@pytest.fixture(scope="session")
def isolation() -> None:
    """Skip, with the reason, what runs programs on a machine that cannot isolate them."""
    try:
        ensure_tested()
    except HoneError as error:
        pytest.skip(f"no sandbox on this machine: {error}")
