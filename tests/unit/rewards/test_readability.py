"""Measures of readability: written examples, values worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.rewards.readability import code_blocks, ends_in_loop, has_summary, longest_paragraph, repetition

SENTENCE = "我们先把两个数加起来得到总数。"  # 14 Han characters and a full stop


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("a b c d e f g", 0.0),  # shorter than a window
        ("a b c d e f g h", 0.0),
        ("a b c d e f g h i", 0.0),
        ("a a a a a a a a a", 0.5),  # two equal windows
        ("a a a a a a a a a a a", 0.75),  # four
        # 16 words make 9 windows; the ninth is the first again.
        ("a b c d e f g h a b c d e f g h", 1 / 9),
        ("a b c d e f g h x a b c d e f g h", 1 / 10),
        # Chinese words between spaces are words: 9 of them make two equal windows.
        (" ".join(["所以"] * 9), 0.5),
        # 12 characters at a stretch are a word still; from 13 on each is a unit.
        ("大" * 12, 0.0),
        ("大" * 13, 0.0),  # one window
        ("大" * 16, 0.75),  # four equal windows
        (SENTENCE, 0.0),
        # 30 units make 18 windows, and there are 15 places in the sentence where one can begin.
        (SENTENCE * 2, 3 / 18),
        (SENTENCE + "\n" + SENTENCE, 3 / 18),
        # Latin words are units beside them: "so" and 13 characters, twice, are 28 units and 16 windows, 14 of them new.
        (("so" + "一二三四五六七八九十甲乙丙") * 2, 2 / 16),
    ],
)
def test_repetition_is_the_share_of_windows_that_stood_before(text: str, share: float) -> None:
    assert repetition(text) == pytest.approx(share)


@given(st.text())
def test_repetition_is_a_share(text: str) -> None:
    assert 0 <= repetition(text) < 1


@pytest.mark.parametrize(
    "text",
    [
        "So it is 5. " + "Wait, let me check. " * 5,  # 100 characters
        "So it is 5. " + "Wait, let me check. " * 5 + "Wait, le",  # cut in the middle
        "x" * 100,
        "因此答案是五。" * 15,
        "begin " + "".join(map(chr, range(500, 2500))) * 4,  # the longest period
        "Wait, let me check. " * 6 + "\n\n",
        "1, 2, 3\n" * 13,
    ],
)
def test_a_text_that_repeats_its_end_is_in_a_loop(text: str) -> None:
    assert ends_in_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "So it is 5.",
        "x" * 99,
        "ha " * 33,
        "So. " + "A sentence of forty characters, no less. " * 3,  # three times only
        "Wait, let me check. " * 5 + "So it is 5.",  # it got out
        "".join(f"Step {number}. " for number in range(100)),
        "begin " + "".join(map(chr, range(500, 2501))) * 4,  # a period of 2001 characters
        " " * 1000,
    ],
)
def test_a_text_that_goes_on_is_in_no_loop(text: str) -> None:
    assert not ends_in_loop(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0.0),
        ("one two three", 3.0),
        ("one two\nthree\n\nfour", 3.0),
        ("one\n \t\ntwo three\n\n\n\nfour", 2.0),
        ("x = 3 + 5", 5.0),
        ("一二三四五六七八", 5.0),
        ("一二三四，五六七八。", 5.0),
        ("we know 一二三四五六七八 so", 8.0),
    ],
)
def test_the_longest_paragraph_in_words(text: str, words: float) -> None:
    assert longest_paragraph(text) == pytest.approx(words)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("no code, only `x`", 0),
        ("```python\nprint(1)\n```", 1),
        ("so:\n```\na\n```\nand\n~~~\nb\n~~~\n", 2),
        ("- item\n    ```\n    a\n    ```", 1),  # inside a list
        ("```\nnever closed", 1),
        ("~~~\n```\n~~~", 1),  # a fence of the other kind is content
        ("```one line``` of code", 0),
        ("text ``` in a line", 0),
    ],
)
def test_fenced_blocks_are_counted(text: str, number: int) -> None:
    assert code_blocks(text) == number


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("<think> a </think> so it is 5", True),
        ("<think> a </think> it is <answer> 5 </answer>", True),
        ("<think> a </think> <answer> 5 </answer> , checked", True),
        ("a </think> 5", True),
        ("<think> a </think> <answer> 5 </answer>", False),  # the bare answer
        ("<think> a </think>\n\n<answer>\n5\n</answer>\n", False),
        ("so it is 5", False),  # no thinking that it could follow
        ("<think> a </think>", False),
        ("<think> a </think> <answer> </answer>", False),
        ("<think> a", False),
        ("", False),
    ],
)
def test_a_summary_says_more_than_the_answer_after_the_thinking(text: str, has: bool) -> None:
    assert has_summary(text) is has
