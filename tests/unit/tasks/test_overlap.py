"""Which training texts hold evaluation texts."""

import json
from pathlib import Path

import pytest

from hone.tasks.overlap import MAX_TEXTS, duplicates, find_overlap, normalise

DATA = Path(__file__).parents[3].parent / "shared" / "data"


def words(first: int, last: int) -> str:
    """Return the different words w1 w2 ... from `first` to `last`."""
    return " ".join(f"w{number}" for number in range(first, last + 1))


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("What is $2+3$?", "what is 2 + 3"),
        ("What is 2 + 3 ?", "what is 2 + 3"),
        (r"$\dfrac{1}{2}\,\left(x^{2}\right)\quad$", "frac 1 2 x ^ 2"),
        (r"$\frac12 (x^2)$", "frac12 x ^ 2"),
        ("a well-known one: 3-2", "a well known one 3 - 2"),
        ("x_1, x_{1}", "x 1 x 1"),
        ("小明有３个苹果。", "小 明 有 3 个 苹 果"),
        ("résumé re\u0301sume\u0301 Ａ ﬁ", "resume resume a fi"),
        ("a≠b ＋ 1", "a ≠ b + 1"),
        ("____ \n\t", ""),
    ],
)
def test_normalise(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


def test_the_same_words_are_exact_and_other_signs_are_not() -> None:
    train = [("t1", "Find $3+4$."), ("t2", "find 3 - 4"), ("t3", "Find 3 + 5.")]
    found = find_overlap(train, [("e", "FIND  3+4!")])
    assert [(one.train_id, one.eval_id, one.kind, one.share) for one in found] == [
        ("t1", "e", "exact", 1.0),
        ("t2", "e", "letters", 1.0),
    ]


def test_a_pair_comes_once() -> None:
    found = find_overlap([("t1", words(1, 20)), ("t2", words(1, 20) + " +")], [("e", words(1, 20))])
    assert [(one.train_id, one.kind) for one in found] == [("t1", "exact"), ("t2", "letters")]


def test_the_share_is_that_of_the_evaluation_texts_ngrams() -> None:
    # 20 words have 8 13-grams; the training text holds words 3 to 18, so the 4 that begin at 3, 4, 5 and 6.
    (one,) = find_overlap([("t", f"before {words(3, 18)} after")], [("e", words(1, 20))])
    assert (one.kind, one.share, one.words) == ("n-gram", 0.5, words(3, 18))
    assert find_overlap([("t", words(4, 18))], [("e", words(1, 20))]) == []  # 3 of 8
    assert [one.share for one in find_overlap([("t", words(4, 18))], [("e", words(1, 20))], min_share=0.3)] == [0.375]


def test_thirteen_words_are_needed() -> None:
    assert find_overlap([("t", f"{words(1, 12)} x")], [("e", f"{words(1, 12)} y")], min_share=0) == []
    assert find_overlap([("t", f"so {words(1, 12)}")], [("e", words(1, 12))], min_share=0) == []
    assert [one.words for one in find_overlap([("t", f"so {words(1, 13)}")], [("e", words(1, 13))])] == [words(1, 13)]
    assert find_overlap([("t", "a b c x")], [("e", "a b c y")], n=3)[0].words == "a b c"


def test_the_longest_of_several_runs_is_shown() -> None:
    evaluation = [("e", words(1, 60))]
    (one,) = find_overlap([("t", f"{words(1, 14)} x {words(21, 40)} y {words(45, 57)}")], evaluation, min_share=0.1)
    assert one.words == words(21, 40)
    assert one.share == (2 + 8 + 1) / 48


def test_templates_say_nothing() -> None:
    instruction = words(100, 120)
    evaluation = [
        (f"e{number}", f"{instruction} {words(200 + 20 * number, 219 + 20 * number)}") for number in range(30)
    ]
    assert len(evaluation) > MAX_TEXTS
    assert find_overlap([("t", f"{instruction} is asked of something else")], evaluation, min_share=0) == []
    held = [("t", f"{instruction} {words(240, 259)}")]  # without "exact": other words around it
    assert [(one.eval_id, one.share) for one in find_overlap([("t", held[0][1] + " end")], evaluation)] == [("e2", 1.0)]


def test_chinese_characters_are_words() -> None:
    question = "小明有三个苹果，小红给了他两个，现在一共有几个？"
    (one,) = find_overlap([("t", f"请回答：{question}谢谢")], [("e", question)])
    assert (one.kind, one.share) == ("n-gram", 1.0)


def test_one_training_text_can_hold_several() -> None:
    train = [("t", f"{words(1, 20)} {words(31, 50)}")]
    evaluation = [("e1", words(1, 20)), ("e2", words(31, 50)), ("e3", words(61, 80))]
    assert [one.eval_id for one in find_overlap(train, evaluation)] == ["e1", "e2"]


def test_nothing_and_texts_without_words() -> None:
    assert find_overlap([], [("e", "a")]) == find_overlap([("t", "a")], []) == []
    assert find_overlap([("t", "?!")], [("e", "a")], min_share=0) == []


def test_training_texts_pass_by_one_at_a_time() -> None:
    drawn = []

    def train():
        for number in range(3):
            drawn.append(number)
            yield str(number), "a b c"

    assert len(find_overlap(train(), [("e", "A B C")])) == 3
    assert drawn == [0, 1, 2]


def test_duplicates_are_groups_of_ids() -> None:
    texts = [("1", "2 + 2?"), ("2", "other"), ("3", "2+2"), ("4", "2 - 2"), ("5", "$2+2$.")]
    assert duplicates(texts) == [("1", "3", "5")]


@pytest.mark.skipif(
    not DATA.is_dir(), reason="the real data sets lie in shared/data beside the project, which is absent"
)
def test_math_train_and_test() -> None:
    def questions(name: str) -> list[tuple[str, str]]:
        with (DATA / f"{name}.jsonl").open(encoding="utf-8") as lines:
            return [(row["id"], row["problem"]) for row in map(json.loads, lines)]

    train, test = questions("math_train"), questions("math_test5000")
    found = find_overlap(train, test)
    same = {one.eval_id: one.kind for one in found if one.kind != "n-gram"}
    assert len(same) == 10
    # The other six differ in a sign, a bracket or a decimal point, as tan 225 does from tan 22.5.
    assert sorted(name for name, kind in same.items() if kind == "exact") == [
        "math_test/1038",
        "math_test/3023",
        "math_test/311",
        "math_test/4656",
    ]
    assert not [one for one in find_overlap(train, questions("math500")) if one.kind != "n-gram"]
    every = find_overlap(train, test, min_share=0)
    assert len(every) > 5 * len(found)  # most pairs that share a 13-gram are of one template
