"""Problems out of rows, by a mapping that says which field is what.

A row that cannot be used is refused with its place and the reason. The module does not know whether a reference answer
is one that its verifier can read, or whether a program passes its tests.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from hone.tasks.formats import ASKS, Mapping, mapping_for
from hone.tasks.livecodebench import Window, asked_form, unpack_tests
from hone.tasks.overlap import normalise
from hone.tasks.rows import HUB, BadRow, Refused, Row, from_json, kind_of, near, rows_of
from hone.tasks.split import Split, split_of
from hone.types import AssertTest, CallTest, CodeTest, HoneError, Language, Message, Problem, StdinTest

LETTERS = "ABCDEFGHIJ"


class Loaded(NamedTuple):
    """The problems of a data set, and a line for each row that was left out."""

    problems: list[Problem]
    bad_rows: list[str]


def load_problems(
    path: str,
    *,
    format: str = "",
    split: Split | Literal["all"] = "all",
    count: int = 0,
    seed: int = 0,
    max_bad_rows: int = 0,
    hub_split: str = "train",
    hub_config: str = "",
    name: str = "",
    since: str = "",
    until: str = "",
    **given: str,
) -> Loaded:
    """Return the problems of a data set; `format` and what else is given make the mapping (`mapping_for`).

    `name` is what the set is called, by default as its file or on the hub. `since` and `until` keep the problems whose
    date lies in that window, days included.

    `split` keeps those whose normalised question belongs to it. With a `count`, at most so many come: `seed` says which
    and in which order, a shorter list being the beginning of a longer one. Without, all come, as they stand. Refuse
    more than `max_bad_rows` rows that cannot be used, and a data set without a problem.
    """
    mapping = mapping_for(format, **given)
    window = Window.of(since, until)
    task = name or (path.removeprefix(HUB) if path.startswith(HUB) else Path(path).stem)
    problems: list[Problem] = []
    bad_rows: list[str] = []
    num_bad = num_outside = 0
    seen: dict[str, int] = {}
    for row in rows_of(path, hub_split, hub_config):
        try:
            if not _is_wanted(row, mapping, window):
                num_outside += 1
                continue
            problem = _problem(row, mapping, task)
            if problem.id in seen:
                raise Refused(f"the id {_shown(problem.id)} is that of {row.unit} {seen[problem.id]}")
        except (Refused, RecursionError) as refused:
            num_bad += 1
            if not bad_rows or num_bad <= max_bad_rows:
                bad_rows.append(f"{path}, {row.unit} {row.number}: {refused}")
            continue
        seen[problem.id] = row.number
        if split in ("all", split_of(normalise(problem.question))):
            problems.append(problem)
    if num_bad > max_bad_rows:
        raise HoneError(f"{bad_rows[0]} (bad rows in all: {num_bad}; max_bad_rows allows {max_bad_rows})")
    if not problems:
        of_split = "" if split == "all" else f" of the split {split!r} among {len(seen)}"
        of_window = f" in the window; {num_outside} outside" if num_outside else ""
        raise HoneError(f"{path}: no problem{of_split}{of_window}")
    if count:
        random.Random(f"{seed}/{task}").shuffle(problems)
        del problems[count:]
    return Loaded(problems, bad_rows)


def _is_wanted(row: Row | BadRow, mapping: Mapping, window: Window) -> bool:
    if window == Window() or isinstance(row, BadRow):
        return True
    found = _find(row.fields, mapping.date) if mapping.date else None
    if found is None:
        raise Refused("the rows have no date, so there is no window of dates")
    return window.holds(found[0])


def _problem(row: Row | BadRow, mapping: Mapping, task: str) -> Problem:
    if isinstance(row, BadRow):
        raise Refused(row.why)
    fields = row.fields
    question = _text(_find(fields, mapping.question), "question").strip()
    choices: list[str] = []
    tests: tuple[CodeTest, ...] = ()
    setup = starter = ""
    if mapping.verifier == "code":
        starter = _text(_find(fields, f"{mapping.starter}|"), "starter code", optional=True)
        if starter and "{starter}" not in mapping.prompt:
            question = f"{question}\n{starter}"
        tests, setup = _program(fields, mapping, f"{question}\n{starter}")
        answer = _text(_find(fields, f"{mapping.answer}|"), "answer", optional=True)
        shown = [test.code for test in tests if isinstance(test, AssertTest)][: mapping.shown_tests]
        question = "\n".join([question, *shown])
    elif mapping.verifier == "choice":
        choices, answer = _choices(fields, mapping)
        if mapping.shuffle:
            choices, answer = _shuffled(choices, answer, question)
    elif mapping.verifier == "instructions":
        answer = _instructions(fields, mapping)
    else:
        answer = _reference(fields, mapping)
    language = mapping.language if mapping.language != "auto" else "zh" if _HAN.search(question) else "en"
    message = _message(mapping, language, question, choices, starter)
    problem = Problem(
        id=_id(row, mapping, task),
        task=task,
        messages=(Message(role="user", content=message),),
        answer=answer,
        verifier=mapping.verifier,
        extract=mapping.extract,
        language=language,
        tests=tests,
        setup=setup,
        asked=question if question != message else "",
        tags=_tags(fields, mapping),
    )
    _refuse_unwritable(problem)
    return problem


_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(?:question|choices|options|starter)\}")


def _message(mapping: Mapping, language: Language, question: str, choices: list[str], starter: str) -> str:
    """Fill in the prompt. What is filled in is never searched for placeholders; doubled braces are single ones."""
    listed, optional = (
        "\n".join(f"{letter}{mark} {choice}" for letter, choice in zip(LETTERS, choices, strict=False)) for mark in ".)"
    )
    plain = "{question}\n\n{choices}" if choices else "{question}"
    prompt = mapping.prompt or plain + ASKS.get(mapping.extract, {}).get(language, "")
    texts = {"{{": "{", "}}": "}", "{question}": question, "{choices}": listed, "{options}": optional}
    texts["{starter}"] = asked_form(starter)
    return _PLACEHOLDER.sub(lambda found: texts[found.group()], prompt)


def _id(row: Row, mapping: Mapping, task: str) -> str:
    found = _find(row.fields, mapping.id)
    if found is None:
        return f"{task}/{row.number}"
    name = "/".join(_text([part], "id").strip() for part in found)
    return f"{task}/{name}" if name.isdecimal() or len(found) > 1 else name


_LEVEL = re.compile(r"level\s*", re.IGNORECASE)


def _tags(fields: dict[str, Any], mapping: Mapping) -> dict[str, str]:
    """Return the subject and the level of a row, `Level 3` being `3`; where it has none, or no text, none."""
    tags: dict[str, str] = {}
    for tag, names in (("subject", mapping.subject), ("level", mapping.level)):
        for value in _find(fields, f"{names}|") or ():
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                text = _text([value], tag, optional=True).strip()
                tags[tag] = _LEVEL.sub("", text, count=1) if tag == "level" else text
    return {tag: text for tag, text in tags.items() if text}


def _instructions(fields: dict[str, Any], mapping: Mapping) -> str:
    """Return IFEval's instructions as JSON text, `{"instruction_id_list": [...], "kwargs": [{...}, ...]}`.

    The hub gives every instruction the arguments of all kinds, null where they are another's: those are left out.
    """
    names, arguments = _find(fields, mapping.answer) or ([], [])
    if isinstance(arguments, str):
        arguments = from_json(arguments)
    if not isinstance(names, list) or not isinstance(arguments, list):
        raise Refused(f"the instructions are {kind_of(names)} and their arguments {kind_of(arguments)}, not two lists")
    if not names or len(names) != len(arguments):
        raise Refused(f"{len(names)} instructions and {len(arguments)} objects of arguments")
    if any(not isinstance(name, str) for name in names):
        raise Refused("the name of an instruction is not text")
    if any(not isinstance(one, dict | None) for one in arguments):
        raise Refused("the arguments of an instruction are not an object")
    given = [{key: value for key, value in (one or {}).items() if value is not None} for one in arguments]
    return json.dumps({"instruction_id_list": names, "kwargs": given}, ensure_ascii=False)


def _reference(fields: dict[str, Any], mapping: Mapping) -> str:
    """Return the reference answer: the field, or what a worked solution ends in (`#### 72`, `\\boxed{72}`)."""
    worked = _find(fields, f"{mapping.solution}|")
    found = _find(fields, f"{mapping.answer}|" if worked else mapping.answer)
    if found is None:
        answer = _final_answer(_text(worked, "solution"))
        if not answer:
            raise Refused("no answer, and the solution has neither \\boxed{} nor ####")
        return answer
    if len(found) == 1 and isinstance(found[0], list):
        return ", ".join(_text([value], "answer").strip() for value in found[0]) or _empty("answer")
    answer = _text(found, "answer").strip()
    return _final_answer(answer) or answer


_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def _final_answer(text: str) -> str:
    """Return what follows the last ####, or else what is in the last box; nothing where there is neither."""
    if "####" in text:
        return text.rpartition("####")[2].strip()
    start = max((found.end() for found in _BOX.finditer(text)), default=None)
    depth = 1
    for found in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL) if start is not None else ():
        depth += {"{": 1, "}": -1}.get(found.group(), 0)
        if depth == 0:
            return text[start:][: found.start()].strip()
    return ""


def _choices(fields: dict[str, Any], mapping: Mapping) -> tuple[list[str], str]:
    """Return the choices, and the letter of the right one: named by its label, its text or its index from 0."""
    found = _find(fields, mapping.choices)
    given = found[0] if found is not None and len(found) == 1 else found
    if isinstance(given, str):
        given = from_json(given)
    match given:
        case {"text": list(values), "label": list(names)} if len(values) == len(names):
            labels = [str(name) for name in names]
        case dict():
            labels = sorted(name for name, value in given.items() if value is not None)
            values = [given[name] for name in labels]
        case list():
            labels, values = list(LETTERS[: len(given)]), given
        case _:
            raise Refused(f"the choices are {kind_of(given)}")
    choices = [_text([value], "choice").strip() for value in values]
    if not 2 <= len(choices) <= len(LETTERS):
        raise Refused(f"{len(choices)} choices; from 2 to {len(LETTERS)} can be asked for")
    answer = _text(_find(fields, mapping.answer), "answer").strip()
    indices = [str(index) for index in range(len(choices))]
    for names in (choices,) if mapping.shuffle else (labels, indices, choices):
        if names.count(answer) == 1:
            return choices, LETTERS[names.index(answer)]
    raise Refused(f"the answer {_shown(answer)} is none of the choices {', '.join(labels)}")


def _shuffled(choices: list[str], answer: str, question: str) -> tuple[list[str], str]:
    """Return the choices in an order drawn from the question, the same on every machine, and the right one's letter."""
    order = list(range(len(choices)))
    random.Random(question).shuffle(order)
    return [choices[place] for place in order], LETTERS[order.index(LETTERS.index(answer))]


def _program(fields: dict[str, Any], mapping: Mapping, question: str) -> tuple[tuple[CodeTest, ...], str]:
    """Return the tests of a program and the code that precedes it."""
    function = _text(_find(fields, mapping.entry_point or "|"), "entry point", optional=True)
    owner = "Solution." if "class Solution" in question else ""
    tests = list(_tests(_find(fields, mapping.tests), function, owner))
    for packed in _find(fields, f"{mapping.packed_tests}|") or ():
        given = unpack_tests(packed) if isinstance(packed, str) and packed.strip() else packed or []
        tests += _tests(given, function, owner)
    if not tests:
        raise Refused("no tests")
    before = _lines(_find(fields, f"{mapping.test_setup}|"), "test setup")
    setup = [mapping.preamble, _lines(_find(fields, mapping.setup or "|"), "setup")]
    if mapping.code_question:
        head, found, _ = question.partition(f"def {function}(")
        setup.append(head if found else "")
    for number, test in enumerate(tests):
        if isinstance(test, AssertTest):
            call = f"\n\ncheck({function})\n" if function and "def check(" in test.code else ""
            tests[number] = AssertTest(code="\n".join([before, test.code] if before else [test.code]) + call)
    return tuple(tests), "\n".join(part for part in setup if part)


def _tests(value: Any, function: str, owner: str) -> Iterator[CodeTest]:
    """Yield the tests of any form that is known.

    Python code or a list of it; `{"functional": code}`; `{"input", "output"}` or a list of them, or `{"inputs": [...],
    "outputs": [...]}`, with `fn_name` where a function is called; and JSON text of these. `owner` is the function's
    class with a dot.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = from_json(value)
    match value:
        case str() if value.strip():
            yield AssertTest(code=value)
        case list():
            for one in value:
                yield from _tests(one, function, owner)
        case {"functional": str(code)}:
            yield AssertTest(code=code)
        case {"input_output": inner}:
            yield from _tests(inner, function, owner)
        case {"inputs": inputs, "outputs": outputs} | {"input": inputs, "output": outputs}:
            called = "" if value.get("testtype") == "stdin" else value.get("fn_name") or function
            if called and not (isinstance(called, str) and called.isidentifier()):
                raise Refused("the function that the tests call has no Python name")
            if not (isinstance(inputs, list) and isinstance(outputs, list)):
                inputs, outputs = [inputs], [outputs]
            if len(inputs) != len(outputs):
                raise Refused(f"{len(inputs)} inputs of tests but {len(outputs)} outputs")
            for given, wanted in zip(inputs, outputs, strict=True):
                yield _call(owner + called, given, wanted) if called else _run(given, wanted)
        case _:
            raise Refused(f"the tests hold {kind_of(value)} of no known form")


def _run(given: Any, wanted: Any) -> StdinTest:
    return StdinTest(stdin=_lines([given], "input of a test"), stdout=_lines([wanted], "output of a test"))


def _call(function: str, given: Any, wanted: Any) -> CallTest:
    """Return a call. As text there is a JSON value a line; as a list, the result stands in a list of its own."""
    if isinstance(given, str) and isinstance(wanted, str):
        args = [from_json(line) for line in given.split("\n") if line.strip()]
        return CallTest(function=function, args=tuple(args), expected=from_json(wanted))
    if not isinstance(given, list):
        raise Refused(f"the arguments of {function} are {kind_of(given)}, not a list")
    expected = wanted[0] if isinstance(wanted, list) and len(wanted) == 1 else wanted
    return CallTest(function=function, args=tuple(given), expected=expected)


def _find(fields: dict[str, Any], names: str) -> list[Any] | None:
    """Return the values of the first alternative that the row has; None where it may have none."""
    for alternative in names.split("|"):
        if not alternative:
            return None
        values = [_value(fields, name) for name in alternative.split("+")]
        if all(value is not None for value in values):
            return values
    wanted = [name for alternative in names.split("|") for name in alternative.split("+")]
    for name in wanted:
        if name in fields:
            raise Refused(f"the field {_shown(name)} is null")
    has = ", ".join(_shown(name) for name in list(fields)[:12])
    raise Refused(f"no field {' or '.join(map(repr, wanted))}; the row has {has}{near(wanted[0], fields)}")


def _value(fields: dict[str, Any], name: str) -> Any:
    """Return a field, or one within a field that is an object or the JSON text of one; None where there is none."""
    if name in fields or "." not in name:
        return fields.get(name)
    outer, _, inner = name.partition(".")
    value = fields.get(outer)
    if isinstance(value, str) and value.startswith("{"):
        value = from_json(value)
    return _value(value, inner) if isinstance(value, dict) else None


def _text(values: list[Any] | None, role: str, *, optional: bool = False) -> str:
    """Return the values of a field as text; refuse what is neither text nor a number, and what is empty."""
    parts: list[str] = []
    for value in values or ():
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            parts.append(str(int(value)) if value == int(value) else str(value))
        else:
            raise Refused(f"the {role} is {kind_of(value)}, not text")
    text = "\n".join(parts)
    return text if text.strip() or optional else _empty(role)


def _lines(values: list[Any] | None, role: str) -> str:
    """Return text that a field may also hold as a list of lines, or leave out."""
    flat = [line for value in values or () for line in (value if isinstance(value, list) else [value])]
    return _text(flat, role, optional=True)


def _empty(role: str) -> NoReturn:
    raise Refused(f"the {role} is empty")


def _refuse_unwritable(problem: Problem) -> None:
    """Refuse text that cannot be written down as UTF-8, and a NUL in what people, models and compilers read."""
    read = [problem.id, problem.messages[0].content, problem.answer, problem.setup]
    data: list[str] = []
    for test in problem.tests:
        match test:
            case StdinTest(stdin=stdin, stdout=stdout):
                data += [stdin, stdout]
            case CallTest(function=function, args=args, expected=expected):
                data.append(json.dumps([function, args, expected], ensure_ascii=False, default=str))
            case AssertTest(code=code):
                read.append(code)
    if any("\0" in text for text in read):
        raise Refused("a NUL character")
    try:
        "".join(read + data).encode()
    except UnicodeEncodeError as error:
        raise Refused(f"not UTF-8, or half of a surrogate pair: {error.object[error.start]!r}") from error


def _shown(text: str) -> str:
    """Return untrusted text as it can stand in a message."""
    return repr(text if len(text) <= 40 else text[:40] + "...")
