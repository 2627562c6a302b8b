"""What the fields of a row mean: a mapping, and those of the data sets that people know.

A mapping is a few lines of a recipe. The module reads no file and judges no answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from hone.tasks import livecodebench
from hone.tasks.rows import near
from hone.types import HoneError, Language

# LeetCode's judge has these names, and the rows' tests build and compare lists and trees with them.
LEETCODE_SETUP = """\
from bisect import *
from collections import *
from copy import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from string import *
from typing import *
import bisect, collections, copy, datetime, functools, heapq, itertools, math, operator, random, re, string
from bisect import bisect_left, bisect_right, insort
from builtins import abs, pow
from copy import deepcopy
from random import choice, randint


class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next


class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right


def list_node(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head


def is_same_list(first, second):
    while first and second and first.val == second.val:
        first, second = first.next, second.next
    return first is None and second is None


def tree_node(values):
    nodes = [None if value is None else TreeNode(value) for value in values]
    children = iter(nodes[1:])
    for node in nodes:
        if node is not None:
            node.left = next(children, None)
            node.right = next(children, None)
    return nodes[0] if nodes else None


def is_same_tree(first, second):
    if first is None or second is None:
        return first is second
    return (
        first.val == second.val
        and is_same_tree(first.left, second.left)
        and is_same_tree(first.right, second.right)
    )
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Which field of a row is what, and how the question is put and the answer checked.

    A field is named by its key, by `outer.inner` within an object, by `first|second` where rows have the one or the
    other (and by `first|` where they may have none), and by `first+second` where both belong together.
    """

    question: str = ""
    answer: str = ""  # the reference or, for code, a right program
    solution: str = ""  # a worked solution that ends in the answer, for rows without `answer`
    id: str = "id|task_id|unique_id|"  # without one, the name of the file and the line
    choices: str = ""  # a list, or an object of letters
    shuffle: bool = False  # the choices stand in an order drawn from the question; `answer` is a choice's text
    tests: str = ""
    packed_tests: str = ""  # more tests, packed as LiveCodeBench's private ones
    starter: str = ""  # code that the program continues; it is shown
    setup: str = ""  # code that precedes the program
    test_setup: str = ""  # code that precedes each test and may use the program's names
    entry_point: str = ""  # the function that the tests call
    preamble: str = ""  # code, not a field, that precedes every program
    code_question: bool = False  # the question is a program's head: what it has before the entry point is set up
    shown_tests: int = 0  # how many tests the question shows, so that the names of functions are known
    verifier: str = "math"
    extract: str = "boxed"
    prompt: str = ""  # {question}, {choices} (A. x), {options} (A) x) and {starter} are filled in;
    # by default it asks for what `extract` looks for
    subject: str = ""  # tags of the problem, where the row has them
    level: str = ""
    date: str = ""  # when the problem appeared
    language: Literal["auto", "en", "zh"] = "auto"


_CODE = Mapping(verifier="code", extract="code")
_CHOICE = Mapping(verifier="choice", extract="choice")
PRESETS = {
    "gsm8k": Mapping(question="question|problem|Body+Question", answer="answer|Answer"),
    "math": Mapping(
        question="problem|question",
        answer="answer|final_answer",
        solution="solution",
        subject="subject|type|subfield",
        level="level",
    ),
    "aime": Mapping(question="problem|Problem|question", answer="answer|Answer"),
    "deepscaler": Mapping(question="problem", answer="answer", solution="solution"),
    "choices": replace(
        _CHOICE,
        question="question|problem|Question",
        answer="answer|answerKey|Answer",
        choices="choices|options|A+B+C+D",
        subject="subject",
    ),
    "gpqa": replace(
        _CHOICE,
        question="Question|question|problem",
        answer="Correct Answer",
        choices="Correct Answer+Incorrect Answer 1+Incorrect Answer 2+Incorrect Answer 3",
        shuffle=True,
        id="Record ID|id|",
        subject="High-level domain",
    ),
    "ifeval": Mapping(
        question="prompt",
        answer="instruction_id_list+kwargs",
        id="id|key|",
        verifier="instructions",
        extract="summary",
    ),
    "mbpp": replace(
        _CODE,
        question="prompt|text",
        answer="code|canonical_solution|",
        tests="test_list|tests",
        test_setup="test_setup_code|test_imports|setup|imports|",
        shown_tests=1,
    ),
    "humaneval": replace(
        _CODE,
        question="prompt",
        answer="prompt+canonical_solution|",
        tests="test|tests",
        entry_point="entry_point",
        code_question=True,
        prompt="Complete this Python function.\n\n```python\n{question}\n```\n\n"
        "Answer with the whole function in one ```python block.",
    ),
    "leetcode": replace(
        _CODE,
        question="prompt|problem|question",
        answer="canonical_solution|completion|solution|",
        tests="tests|test",
        preamble=LEETCODE_SETUP,
    ),
    "codecontests": replace(
        _CODE, question="prompt|description", tests="tests|public_tests+private_tests+generated_tests"
    ),
    "codeforces": replace(_CODE, question="prompt|description", tests="tests|official_tests"),
    "livecodebench": replace(
        _CODE,
        question="prompt|question_content|question",
        id="id|question_id|task_id|",
        tests="tests|public_test_cases|input_output",
        packed_tests="private_test_cases",
        starter="starter_code",
        entry_point="metadata.func_name|",
        preamble=LEETCODE_SETUP,
        prompt=livecodebench.PROMPT,
        level="difficulty|labels.difficulty",
        date="contest_date",
    ),
}

# What a prompt asks for where a recipe writes none, by extraction.
ASKS: dict[str, dict[Language, str]] = {
    "boxed": {
        "en": "\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
        "zh": "\n\n请逐步推理，并把最终答案写在 \\boxed{} 中。",
    },
    "choice": {
        "en": '\n\nEnd with the letter of the right choice, as in "The answer is (X)".',
        "zh": "\n\n最后写出正确选项的字母，格式为“答案：X”。",
    },
    "code": {
        "en": "\n\nAnswer with a Python program in one ```python block.",
        "zh": "\n\n请把 Python 程序写在一个 ```python 代码块中。",
    },
}


def mapping_for(format: str = "", **given: str) -> Mapping:
    """Return the mapping of a known format, with the settings that are given and not empty instead of its own."""
    if format and format not in PRESETS:
        raise HoneError(f"no format {format!r}{near(format, PRESETS)}; the formats are {', '.join(PRESETS)}")
    own = {"code": _CODE, "choice": _CHOICE}.get(given.get("verifier", ""), Mapping())
    settings: dict[str, Any] = {name: text for name, text in given.items() if text}
    made = replace(PRESETS.get(format, own), **settings)
    needed = {"code": ("tests",), "choice": ("choices", "answer")}.get(made.verifier, ("answer",))
    for name in ("question", *needed):
        if not getattr(made, name):
            raise HoneError(f"the mapping does not say which field holds the {name}; name it, or a format")
    if made.prompt and "{question}" not in made.prompt:
        raise HoneError("the prompt has no {question}, so no problem would be asked")
    if made.language not in ("auto", "en", "zh"):
        raise HoneError(f"no language {made.language!r}; the languages are en, zh and auto")
    return made
