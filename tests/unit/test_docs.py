"""The pages are true: every shell block of docs/rewards.md is run, in order, as a reader would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("isolation")
def test_every_command_of_the_page_on_rewards_works(tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "docs" / "rewards.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) >= 4
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    found = subprocess.run(
        ["bash", "-e"], input="\n".join(blocks), capture_output=True, text=True, check=False, cwd=tmp_path,
        env=environment, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("gold right 100.0%, wrong accepted 0.0%") == 2
    assert "the reference answer is not right on typo/" in found.stdout
    assert "refused, with the row named" in found.stdout

    def verdicts(name: str) -> list[tuple[object, str]]:
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        return [(row["id"], row["verdict"]) for row in rows]

    assert verdicts("verdicts.jsonl") == [
        (1, "right"),
        (2, "right"),
        (3, "wrong"),
        (4, "right"),
        (5, "wrong"),
    ]
    assert verdicts("program-verdicts.jsonl") == [
        ("stdin", "passed"), ("assert", "failed"), ("call", "passed"), ("loop", "timeout"),
    ]  # fmt: skip
