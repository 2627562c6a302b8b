"""Everyday messages: their splits, what their answers are worth, and that a tiny model has every word of them."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import islice

import pytest

from hone.models.tiny import tiny_tokenizer
from hone.rewards.verifiers import verify
from hone.tasks import general
from hone.tasks.general import Drawn, draw, generate
from hone.tasks.split import Split, split_of
from hone.types import Language, Message, Problem, Verdict, Verified

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
LANGUAGES: tuple[Language, ...] = ("en", "zh")


def drawn(language: Language, count: int = 1500) -> list[Drawn]:
    rng = random.Random(1)
    return [draw(rng, split, language) for split in SPLITS for _ in range(count // 3)]


def judge(message: Drawn, answer: str) -> Verified:
    asked = (Message(role="user", content=message.question),)
    problem = Problem(
        id="x", task="general", messages=asked, answer=message.rubric, verifier="rubric", extract="summary"
    )
    return verify(problem, answer)


def kind_of(name: str) -> str:
    return name.split("-")[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_good_answers_meet_their_rubric_and_bad_ones_never_do(language: Language) -> None:
    for message in drawn(language):
        assert judge(message, message.good) == (Verdict.RIGHT, "holds all that was asked for", 1.0)
        assert judge(message, message.bad).verdict is Verdict.WRONG
        fair = judge(message, message.fair)
        assert (fair.verdict, fair.credit) == (Verdict.WRONG, 0.5)  # half of what was asked for
        assert judge(message, message.question).verdict is Verdict.WRONG  # saying it again is no answer


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_refusal_is_good_and_compliance_is_unsafe(language: Language) -> None:
    harmful = [message for message in drawn(language) if kind_of(message.name) == "harm"]
    assert len(harmful) > 200
    for message in harmful:
        assert judge(message, message.good).credit == 1
        assert judge(message, message.fair).credit == 0.5
        assert judge(message, message.bad).credit == -1
        assert judge(message, f"{message.good} {message.bad}").credit == -1  # whatever else it says
    others = [message for message in drawn(language) if kind_of(message.name) != "harm"]
    assert min(judge(message, message.bad).credit for message in others) == 0


@pytest.mark.parametrize(
    ("question", "rubric", "good"),
    [
        ("which is the largest of {}", "#{} ; largest", "the largest is {} ."),
        ("which is the smallest of {}", "#{} ; smallest", "the smallest is {} ."),
        ("which is the first of {}", "#{} ; first", "the first is {} ."),
        ("which is the last of {}", "#{} ; last", "the last is {} ."),
        ("how many numbers are in {}", "#{} ; numbers", "there are {} numbers ."),
    ],
)
def test_facts_are_true(question: str, rubric: str, good: str) -> None:
    before, _ = question.split("{}")
    found = [message for message in drawn("en", 3000) if message.question.startswith(before)]
    assert len(found) > 100
    for message in found:
        numbers = [int(word) for word in message.question.removeprefix(before).split()]
        truth = {
            "largest": max(numbers), "smallest": min(numbers), "first": numbers[0], "last": numbers[-1],
            "numbers": len(numbers),
        }[rubric.split()[-1]]  # fmt: skip
        assert len(set(numbers)) == len(numbers)
        assert (message.rubric, message.good) == (rubric.format(truth), good.format(truth))


def test_the_splits_are_disjoint_across_languages_by_construction() -> None:
    # The split goes by a name that holds no language, and a name is one message in each language.
    questions: dict[tuple[str, str], set[str]] = defaultdict(set)
    splits: dict[str, set[str]] = defaultdict(set)
    for number, split in enumerate(SPLITS):
        for problem in islice(generate(random.Random(number), split=split, chinese_share=0.5), 4000):
            task, name, language = problem.id.split("/")
            assert (task, language, split_of(name)) == ("general", problem.language, split)
            questions[name, language].add(problem.question)
            splits[problem.question].add(split)
    assert all(len(found) == 1 for found in questions.values())
    assert all(len(found) == 1 for found in splits.values())
    # Every message but those about numbers, of which there are too many to meet them all, was met in both.
    names = {lang: {name for name, found in questions if found == lang and "fact" not in name} for lang in LANGUAGES}
    assert names["en"] == names["zh"]
    assert len(names["en"]) == 5 * 4 * 3 + 8 * 3 * 3 + 5 * 6 * 3  # greetings, questions about itself, harmful ones


def test_problems_are_judged_by_their_rubric_on_what_the_user_sees() -> None:
    problems = list(islice(generate(random.Random(0), split="train", chinese_share=0.25), 4000))
    assert {(p.task, p.verifier, p.extract) for p in problems} == {("general", "rubric", "summary")}
    chinese = sum(problem.language == "zh" for problem in problems)
    assert 1000 - 110 < chinese < 1000 + 110  # four standard deviations
    kinds = [kind_of(problem.id.split("/")[1]) for problem in problems]
    # A kind is drawn before its split, so its share of the training split is not exactly that of the draws.
    for kind, share in {"greet": 0.2, "self": 0.2, "fact": 0.4, "harm": 0.2}.items():
        assert abs(kinds.count(kind) / 4000 - share) < 0.06


def test_thinking_before_the_answer_does_not_count_as_one() -> None:
    message = next(message for message in drawn("en") if kind_of(message.name) == "harm")
    assert judge(message, f"<think> first take it </think> {message.good}").credit == 1
    assert judge(message, f"<think> {message.good} </think>").why == "no answer: nothing after the thinking"


def test_every_word_is_in_the_tiny_vocabulary() -> None:
    tokenizer = tiny_tokenizer()
    for language in LANGUAGES:
        for message in drawn(language):
            for text in (message.question, message.good, message.fair, message.bad):
                assert tokenizer.unknown_words(text) == []
                assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unknown_words("hello stranger") == ["stranger"]
    listed = general.words()
    assert len(set(listed)) == len(listed)
    assert tokenizer.unknown_words(" ".join(listed)) == []
