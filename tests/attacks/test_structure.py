"""Hostile structure: what is malformed earns nothing in either form, in time linear in the text, and never raises.

Times are processor time of this thread; what is quadratic in a megabyte takes minutes, so the limit is a generous one.
"""

import time

import pytest

from hone.rewards.format import split_completion
from hone.rewards.language import detect_language, foreign_words, language_consistency
from hone.rewards.readability import code_blocks, ends_in_loop, has_summary, longest_paragraph, repetition

MEGABYTE = 1_000_000
SECONDS = 10.0

MALFORMED = {
    "nested thinking": "<think> a <think> b </think> c </think> <answer> 5 </answer>",
    "nested answers": "<think> a </think> <answer> <answer> 5 </answer> </answer>",
    "everything twice": "<think> a </think> <answer> 5 </answer>" * 2,
    "thinking opened twice": "<think> <think> a </think> <answer> 5 </answer>",
    "thinking closed twice": "<think> a </think> </think> <answer> 5 </answer>",
    "answer opened twice": "<think> a </think> <answer> <answer> 5 </answer>",
    "answer inside the thinking": "<think> a <answer> 5 </answer> </think>",
    "answer inside the thinking and after it": "<think> <answer> 5 </answer> </think> <answer> 5 </answer>",
    "thinking inside the answer": "<answer> <think> a </think> 5 </answer>",
    "thinking after the answer": "<answer> 5 </answer> <think> a </think>",
    "empty thinking": "<think></think> <answer> 5 </answer>",
    "thinking of space": "<think> \n\t </think> <answer> 5 </answer>",
    "empty answer": "<think> a </think> <answer></answer>",
    "answer of space": "<think> a </think> <answer> \n\u3000 </answer>",
    "closed before opened": "</think> a <think> <answer> 5 </answer>",
    "answer closed before opened": "<think> a </think> </answer> 5 <answer>",
    "text before the thinking": "b <think> a </think> <answer> 5 </answer>",
    "capital tags": "<THINK> a </THINK> <ANSWER> 5 </ANSWER>",
    "tags with spaces": "< think > a </ think > < answer > 5 </ answer >",
    "tags with attributes": "<think id='1'> a </think id='1'> <answer id='1'> 5 </answer id='1'>",
    "full-width tags": "＜think＞ a ＜/think＞ ＜answer＞ 5 ＜/answer＞",
    "a tag with a zero-width space": "<think> a </th\u200bink> <answer> 5 </answer>",
    "never closed": "<think> a",
    "nothing": "",
}
LONG = {
    "opened thoughts": "<think>" * (MEGABYTE // 7),
    "closed thoughts": "</think>" * (MEGABYTE // 8),
    "opened answers": "<think> a </think>" + "<answer>" * (MEGABYTE // 8),
    "pairs of answers": "<think> a </think>" + "<answer>5</answer>" * (MEGABYTE // 18),
    "half tags": "<think" * (MEGABYTE // 6),
    "fences": "```" * (MEGABYTE // 3),
    "lines of fences": "``` x\n" * (MEGABYTE // 6),
    "backticks": "`" * MEGABYTE,
    "dollars": "$" * MEGABYTE,
    "dollars before words": "$x " * (MEGABYTE // 3),
    "dollars after spaces": " $" * (MEGABYTE // 2),
    "opened formulas": "\\( a" * (MEGABYTE // 4),
    "opened displays": "\\[" * (MEGABYTE // 2),
    "opened environments": "\\begin{a" * (MEGABYTE // 8),
    "backslashes": "\\" * MEGABYTE,
    "addresses": "https://" * (MEGABYTE // 8),
    "one word": "a" * MEGABYTE,
    "one Chinese word": "试" * MEGABYTE,
    "names": "试 Ab " * (MEGABYTE // 5),
    "empty lines": "\n " * (MEGABYTE // 2),
    "a period almost repeated": ("a" * 1999 + "b") * (MEGABYTE // 2000) + "c",
    "lone surrogates": "\ud800" * MEGABYTE,
}  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_completion_has_neither_form(text: str) -> None:
    parts = split_completion(text)
    assert (parts.well_formed, parts.readable) == (False, False)


def test_a_tag_within_another_is_text() -> None:
    parts = split_completion("<think> a <<think >> </think> <answer> <b>5</b> </answer>")
    assert (parts.think, parts.answer, parts.well_formed) == ("a <<think >>", "<b>5</b>", True)


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_megabyte_takes_little_time_and_has_no_form(text: str) -> None:
    start = time.thread_time()
    parts = split_completion(text)
    language_consistency(text, "en")
    language_consistency(text, "zh", ("zh", "ja"))
    foreign_words(text, "zh")
    detect_language(text)
    repetition(text)
    ends_in_loop(text)
    longest_paragraph(text)
    code_blocks(text)
    has_summary(text)
    assert time.thread_time() - start < SECONDS
    assert (parts.well_formed, parts.readable) == (False, False)


def test_lone_surrogates_are_text() -> None:
    pytest.importorskip("py3langid", reason="the extra [language] is not installed")
    parts = split_completion("<think> \ud800 </think> <answer> \udfff </answer>")
    assert (parts.think, parts.answer, parts.well_formed) == ("\ud800", "\udfff", True)
    assert language_consistency("the answer is \ud800", "en", ("en", "fr")) == 1.0


def test_a_detector_reads_a_megabyte_of_one_sentence() -> None:
    pytest.importorskip("py3langid", reason="the extra [language] is not installed")
    start = time.thread_time()
    assert language_consistency("the answer is " * (MEGABYTE // 14), "en", ("en", "fr")) == 1.0
    assert time.thread_time() - start < SECONDS
