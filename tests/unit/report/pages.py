"""Reads a written page as a browser would."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """The tags of a page as a browser finds them, and the text of its data element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.embedded = ""
        self._inside: dict[str, str | None] | None = None
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.data = json.loads(self.embedded)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs) if tag in ("script", "style") else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            self.text += data
        elif self._inside.get("id") == "data":
            self.embedded += data
