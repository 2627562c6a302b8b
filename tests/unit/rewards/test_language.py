"""Language consistency: words counted by script."""

import pytest

from hone.rewards.language import foreign_words, language_consistency
from hone.types import Language


@pytest.mark.parametrize(
    ("text", "target", "share"),
    [
        ("try high right so", "en", 1.0),
        ("try high right so", "zh", 0.0),
        ("试 大 对 所以", "zh", 1.0),
        ("试 大 对 所以", "en", 0.0),
        # 2 English words; 1 Han character is 1 / 1.6 = 0.625 words: 2 / 2.625.
        ("try 试 high", "en", 0.761905),
        ("try 试 high", "zh", 0.238095),
        # 8 Han characters are 5 words: 5 / 6 with one English word among them.
        ("我们先算这个数 ok 大", "zh", 0.833333),
        # Numbers, symbols, tags and single letters are of no language.
        ("<think> try 3 + 8 = 11 x y </think>", "zh", 0.0),
        ("<think> 试 3 + 8 = 11 x y </think> <answer> 5 </answer>", "zh", 1.0),
        ("a×b÷c 试", "zh", 1.0),
        ("naïve café", "en", 1.0),
        ("试，大。对！", "zh", 1.0),
        ("try试", "en", 0.615385),  # 1 / 1.625
    ],
)
def test_the_share_of_words_in_the_target_language(text: str, target: Language, share: float) -> None:
    assert language_consistency(text, target) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("text", ["", "3 + 8 = 11", "x = 5", "<think> </think>", "×÷", "...", "123456", "привет"])
def test_a_text_without_words_has_no_consistency(text: str) -> None:
    assert language_consistency(text, "en") is None
    assert language_consistency(text, "zh") is None


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("try 试 high 所以", "en", ["试", "所", "以"]),
        ("try 试 high 所以", "zh", ["try", "high"]),
        ("<think> 试 x </think>", "zh", []),
        ("<think> ok </think> 试", "zh", ["ok"]),
    ],
)
def test_foreign_words_are_found_where_they_stand(text: str, target: Language, words: list[str]) -> None:
    assert [text[start:end] for start, end in foreign_words(text, target)] == words
