"""Where Hone keeps what it need not make again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Return Hone's folder in the user's cache; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "hone")
