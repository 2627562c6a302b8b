"""Whether a reply follows all the instructions of its prompt: the verifier of IFEval.

The reference of a problem is JSON: `{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}`, one object of
arguments for each instruction; arguments that are null are left out. What is judged is the reply alone, without the
thinking. Strict is the reply as it is. Loose is the best of eight variants: the reply as it is, without its first line,
without its last, without both, and each of them without asterisks. A blank reply follows nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from hone.rewards.constraints import ARGUMENTS, KINDS, language_of
from hone.rewards.extract import extract
from hone.types import HoneError, Problem, Verdict, Verified


class Followed(NamedTuple):
    """Whether a reply follows one instruction."""

    instruction: str
    strict: bool
    loose: bool


class Instruction(NamedTuple):
    """An instruction with its arguments, which are those that its kind wants."""

    name: str
    arguments: Mapping[str, Any]

    def is_followed(self, reply: str) -> bool:
        return bool(reply.strip()) and KINDS[self.name].follows(reply, **self.arguments)


def followed(answer: str, reply: str, question: str = "") -> list[Followed]:
    """Say of each instruction of a reference whether a reply follows it.

    A `HoneError` names what cannot be read in the reference. No kind needs the question: what must be repeated is among
    the arguments.
    """
    variants = _variants(reply)
    found = []
    for instruction in _instructions(answer):
        strict = instruction.is_followed(reply)
        found.append(Followed(instruction.name, strict, strict or any(map(instruction.is_followed, variants))))
    return found


def needs_language(answer: str) -> bool:
    """Say whether judging replies needs the extra [language]."""
    return any(KINDS[instruction.name].reads_language for instruction in _instructions(answer))


class Instructions:
    """A reply, right where it follows every instruction strictly; its credit is the share that it follows."""

    def check_reference(self, problem: Problem) -> None:
        """Raise `HoneError` also where an instruction needs an extra that is not installed."""
        try:
            if needs_language(problem.answer):
                language_of("a word")
        except HoneError as error:
            raise HoneError(f"problem {problem.id}: {error}") from error

    def judge_all(self, cases: Sequence[tuple[Problem, str]]) -> list[Verified]:
        return [_judge(problem, reply) for problem, reply in cases]

    def loosely(self, text: str) -> str | None:
        return extract(text, "summary")

    def key(self, answer: str) -> None:
        """Two replies are never the same answer."""

    def wrong_answers(self, problem: Problem) -> list[str]:
        return [""]


def _judge(problem: Problem, reply: str) -> Verified:
    try:
        _instructions(problem.answer)
    except HoneError as error:
        return Verified(Verdict.UNSCORABLE, f"gold: {error}")
    found = followed(problem.answer, reply)
    missed = [instruction for instruction, strict, _ in found if not strict]
    credit = 1 - len(missed) / len(found)
    if missed:
        return Verified(Verdict.WRONG, f"does not follow {missed[0]} ({len(missed)} of {len(found)} missed)", credit)
    return Verified(Verdict.RIGHT, f"follows {len(found)} of {len(found)}", credit)


def _variants(reply: str) -> list[str]:
    lines = reply.split("\n")
    shortened = ("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))
    variants = (reply, *shortened)
    return list(dict.fromkeys((*variants, *(variant.replace("*", "") for variant in variants))))[1:]


@lru_cache(maxsize=1024)
def _instructions(answer: str) -> tuple[Instruction, ...]:
    """Read a reference; a `HoneError` says what is wrong with it."""
    try:
        read = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise HoneError(f"the instructions are no JSON: {error}") from error
    names, arguments = (read.get(key) if isinstance(read, dict) else None for key in ("instruction_id_list", "kwargs"))
    if not isinstance(names, list) or not isinstance(arguments, list) or len(names) != len(arguments) or not names:
        raise HoneError("the instructions are no object with lists instruction_id_list and kwargs of one length, 1 up")
    return tuple(_instruction(name, each) for name, each in zip(names, arguments, strict=True))


def _instruction(name: object, arguments: object) -> Instruction:
    if not isinstance(name, str) or name not in KINDS:
        raise HoneError(f"no instruction is called {name!r}; there are {', '.join(KINDS)}")
    wanted = KINDS[name].arguments
    if not isinstance(arguments, dict):
        raise HoneError(f"the kwargs of {name} are no object")
    given = {key: value for key, value in arguments.items() if value is not None}
    if given.keys() != wanted.keys():
        raise HoneError(f"{name} takes {', '.join(wanted) or 'nothing'}, and is given {', '.join(given) or 'nothing'}")
    for key, value in given.items():
        words, is_right = ARGUMENTS[wanted[key]]
        if not is_right(value):
            raise HoneError(f"{key} of {name} must be {words}, and is {value!r}")
    if "nth_paragraph" in given and given["nth_paragraph"] > given["num_paragraphs"]:
        raise HoneError(f"nth_paragraph of {name} is greater than num_paragraphs")
    return Instruction(name, given)
