"""Preference pairs of files: a prompt and two responses to it, of which one was preferred.

Rows come in the forms that public data has, and one that has none of them is refused by file and line. The module does
not know what a response is worth, or why one is better.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hone.tasks.rows import HUB, Refused, kind_of, read_rows
from hone.types import HoneError, Language, Message

_PROMPTS = ("prompt", "messages", "conversations")
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant",
}  # fmt: skip
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A prompt, whose last message is the user's, with the response that was preferred and the other one."""

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    language: Language = "en"


def read_pairs(path: str) -> list[Pair]:
    """Return the pairs of a file, a folder or a data set of the hub; refuse the first row that is none.

    The prompt is a text, a transcript (`Human: ... Assistant: ...`, HH-RLHF) or a list of messages, {role, content} or
    {from, value}, under `prompt`, `messages` or `conversations`. Responses are texts or messages of the assistant.
    Without a prompt, `chosen` and `rejected` are conversations that differ in their last answer alone.
    """
    name = path.removeprefix(HUB) if path.startswith(HUB) else Path(path).stem
    pairs = []
    for number, row in read_rows(path):
        try:
            pairs.append(_pair(row, f"{name}/{number}"))
        except Refused as refused:
            raise HoneError(f"{path}, line {number}: {refused}") from refused
    return pairs


def prompt_key(prompt: Sequence[Message]) -> str:
    """Return a digest of a prompt: equal ones, but for space, are one prompt wherever they come from."""
    text = "\n".join(f"{message.role}: {' '.join(message.content.split())}" for message in prompt)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def is_held_out(key: str, share: float) -> bool:
    """Say whether the prompt of a key is among the share that is never trained on."""
    return int(key, 16) < share * 2**64


def _pair(row: Mapping[str, Any], name: str) -> Pair:
    for field in ("chosen", "rejected"):
        if field not in row:
            raise Refused(f"no {field}")
    named = [field for field in _PROMPTS if row.get(field) is not None]
    if len(named) > 1:
        raise Refused(f"both {named[0]} and {named[1]}")
    if named:
        prompt = _prompt(row[named[0]], named[0])
        chosen, rejected = (_response(row[field], prompt, field) for field in ("chosen", "rejected"))
    else:
        prompt, chosen = _conversation(row["chosen"], "chosen")
        other, rejected = _conversation(row["rejected"], "rejected")
        if prompt != other:
            raise Refused("no prompt, and chosen and rejected differ before their last answer")
    if not prompt or prompt[-1].role != "user":
        raise Refused("the prompt does not end with a message of the user")
    if not prompt[-1].content.strip():
        raise Refused("the prompt is empty")
    given = row.get("id")
    language: Language = "zh" if _HAN.search(prompt[-1].content) else "en"
    return Pair(
        id=str(given) if isinstance(given, str | int) else name,
        prompt=prompt, chosen=chosen, rejected=rejected, language=language,
    )  # fmt: skip


def _prompt(value: Any, field: str) -> tuple[Message, ...]:
    if isinstance(value, list):
        return _messages(value, field)
    turns = _transcript(_text(value, field))
    if turns and turns[-1].role == "assistant" and not turns[-1].content:
        return turns[:-1]  # the transcript goes up to where the answer begins
    return turns or (Message(role="user", content=value),)


def _response(value: Any, prompt: tuple[Message, ...], field: str) -> str:
    if isinstance(value, str):
        return value
    before, answer = _conversation([value] if isinstance(value, dict) else value, field)
    if before not in ((), prompt):
        raise Refused(f"{field} repeats another prompt")
    return answer


def _conversation(value: Any, field: str) -> tuple[tuple[Message, ...], str]:
    """Take a conversation apart into what was said before its last answer, and that."""
    turns = _messages(value, field) if isinstance(value, list) else _transcript(_text(value, field))
    if not turns or turns[-1].role != "assistant":
        raise Refused(f"{field} does not end with a message of the assistant")
    return turns[:-1], turns[-1].content


def _transcript(text: str) -> tuple[Message, ...]:
    """Return the turns of `Human: ... Assistant: ...`; none where the text is no transcript. One role's join."""
    text = text.lstrip()
    if not text.startswith("Human:"):
        return ()
    _, *parts = _TURN.split(text)
    turns: list[Message] = []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        role: Literal["user", "assistant"] = "user" if speaker == "Human" else "assistant"
        if turns and turns[-1].role == role:
            turns[-1] = Message(role=role, content=f"{turns[-1].content}\n\n{said.strip()}")
        else:
            turns.append(Message(role=role, content=said.strip()))
    return tuple(turns)


def _messages(values: list[Any], field: str) -> tuple[Message, ...]:
    return tuple(_message(value, f"{field}, message {number}") for number, value in enumerate(values, start=1))


def _message(value: Any, where: str) -> Message:
    match value:
        case {"role": str(role), "content": str(content)} | {"from": str(role), "value": str(content)}:
            if role not in _ROLES:
                raise Refused(f"{where}: the role {role!r} is not known ({', '.join(_ROLES)} are)")
            return Message(role=_ROLES[role], content=content)
    raise Refused(f"{where}: neither {{role, content}} nor {{from, value}}")


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise Refused(f"{field} is neither text nor messages but {kind_of(value)}")
    return value
