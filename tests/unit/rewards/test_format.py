"""The structure of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.rewards.format import TAGS, split_completion, without_tags


@pytest.mark.parametrize(
    ("text", "think", "answer"),
    [
        ("<think> try 3 </think> <answer> 8 * 8 - 3 </answer>", "try 3", "8 * 8 - 3"),
        ("<think>a</think><answer>b</answer>", "a", "b"),
        ("  <think>\na\nb\n</think>\n\n<answer> b </answer>\n", "a\nb", "b"),
        ("<think> 1 < 2 </think> <answer> x </answer>", "1 < 2", "x"),
    ],
)
def test_the_whole_structure_is_well_formed(text: str, think: str, answer: str) -> None:
    parts = split_completion(text)
    assert (parts.think, parts.answer, parts.well_formed) == (think, answer, True)


@pytest.mark.parametrize(
    ("text", "think", "answer"),
    [
        # Not well formed, and yet there is one answer.
        ("try 3 <answer> 5 </answer>", "try 3", "5"),
        ("<answer> 5 </answer>", "", "5"),
        ("<think> a <answer> 5 </answer>", "a", "5"),
        ("  <think> a <answer> 5 </answer>", "a", "5"),
        ("a </think> <answer> 5 </answer>", "a", "5"),
        ("<think> a </think> b <answer> 5 </answer>", "a", "5"),
        ("<think> a </think> <answer> 5 </answer> b", "a", "5"),
        ("b <think> a </think> <answer> 5 </answer>", "b <think> a", "5"),
        ("<think> </think> <answer> 5 </answer>", "", "5"),
        ("<think> a </think> <answer> </answer>", "a", ""),
        ("<think> a </think> <think> b </think> <answer> 5 </answer>", "a", "5"),
        # No answer, or more than one.
        ("", "", None),
        ("try 3 + 4", "try 3 + 4", None),
        ("<think> a </think>", "a", None),
        ("<think> a </think> <answer> 5", "a", None),
        ("<think> a </think> 5 </answer>", "a", None),
        ("<think> a </think> </answer> 5 <answer>", "a", None),
        ("<think> a </think> <answer> 5 </answer> <answer> 6 </answer>", "a", None),
        ("<think> a </think> <answer> <answer> 5 </answer> </answer>", "a", None),
        ("<think> a </think> <ANSWER> 5 </ANSWER>", "a", None),
        ("<think> a </think> < answer > 5 < /answer >", "a", None),
        # An answer inside the thinking is none.
        ("<think> a <answer> 5 </answer> </think>", "a", None),
        ("<think> a <answer> 5 </think> </answer>", "a", None),
        ("<think> a </think> <think> <answer> 5 </answer> </think>", "a", None),
    ],
)
def test_anything_else_is_not_well_formed(text: str, think: str, answer: str | None) -> None:
    parts = split_completion(text)
    assert (parts.think, parts.answer, parts.well_formed) == (think, answer, False)


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("<think> a </think> <answer> 5 </answer>", "5"),
        ("<think> a </think> So it is \\boxed{5}.", "So it is \\boxed{5}."),
        ("a </think> 5", "5"),  # the prompt ended in <think>
        ("\n\n a \n</think>\n\n 5 \n", "5"),
        ("<think> a </think> It is <answer>5</answer>", "It is  5"),
        ("<think> a </think> It is <answer> 5 </answer> , checked", "It is   5   , checked"),
        ("<think> a </think> the tag < answer > or <ANSWER>", "the tag < answer > or <ANSWER>"),
    ],
)
def test_the_tolerant_form_is_thinking_and_a_summary(text: str, summary: str) -> None:
    parts = split_completion(text)
    assert (parts.think, parts.summary, parts.readable) == ("a", summary, True)
    assert parts.well_formed is (text == "<think> a </think> <answer> 5 </answer>")


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("", ""),
        (" \n", ""),
        ("5", "5"),  # without tags all of it is thinking and summary at once
        (" so \n it is 5 . ", "so \n it is 5 ."),
        ("<Think> 5", "<Think> 5"),  # no tag
        ("<think> a", ""),  # cut
        ("5 </answer>", ""),
        ("<think> a </think>", ""),
        ("<think> </think> 5", "5"),
        ("</think> 5", "5"),
        ("b <think> a </think> 5", "5"),
        ("<think> a </think> b </think> 5", "b   5"),
        ("<think> a </think> <think> b </think> 5", "b   5"),
        ("<think> a </think> <think> 5", "5"),
        ("</think> a <think> 5", "a   5"),
        ("<think> a </think> <answer> </answer>", ""),
        ("<think> a </think> 5 <answer> </answer>", "5"),
        ("<think> a </think> <answer> 5", "5"),
        ("<think> a </think> 5 </answer>", "5"),
        ("<think> a </think> <answer> 5 </answer> <answer> 6 </answer>", "5     6"),
        ("<think> a <answer> 5 </answer> </think>", ""),
        ("<think> a <answer> 5 </answer> </think> 5", "5"),
        ("try 3 <answer> 5 </answer>", "5"),
    ],
)
def test_anything_else_is_not_readable(text: str, summary: str) -> None:
    parts = split_completion(text)
    assert (parts.summary, parts.readable, parts.well_formed) == (summary, False, False)


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("<think> a </think> <answer> 5 </answer>", {"strict", "tolerant"}),
        ("<think> a </think> it is <answer> 5 </answer>", {"tolerant"}),
        ("a </think> 5", {"tolerant"}),
        ("hello , nice to see you .", {"direct"}),
        ("< think > 5", {"direct"}),
        ("<think> a", set()),
        ("5 </answer>", set()),
        ("<answer> 5 </answer>", set()),  # tags without thinking
        ("", set()),
        (" \n ", set()),
    ],
)
def test_an_answer_has_the_form_that_it_has(text: str, forms: set[str]) -> None:
    parts = split_completion(text)
    assert {form for form in ("strict", "tolerant", "direct") if parts.has_form(form)} == forms
    assert parts.direct is ("direct" in forms)
    assert parts.has_form("any")


PIECES = [*TAGS, *TAGS, "a", "5", " ", "\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_what_is_well_formed_is_readable_and_shows_its_answer(text: str) -> None:
    parts = split_completion(text)
    assert parts.readable or not parts.well_formed
    assert not (parts.direct and parts.readable)
    if parts.well_formed:
        assert parts.summary == parts.answer
    if parts.readable:
        assert parts.think
        assert parts.summary
        assert text.count("</think>") == 1


def test_tags_are_removed_and_leave_a_space() -> None:
    assert without_tags("<think>a</think><answer>5</answer>").split() == ["a", "5"]
    assert without_tags("no tags < here >") == "no tags < here >"
