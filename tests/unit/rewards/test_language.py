"""Language consistency: words counted by script, and by sentence where languages share one."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.rewards.language import detect_language, foreign_words, language_consistency
from hone.types import HoneError, Language

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
LINES = [json.loads(line) for line in (Path(__file__).parent / "language_lines.jsonl").read_text().splitlines()]


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
        # A word in any other script is foreign to both.
        ("привет", "en", 0.0),
        ("hello привет", "en", 0.5),
        ("hello 안녕 नमस्ते ສະບາຍດີ", "en", 0.25),
        ("ｗａｉｔ 试", "zh", 0.384615),  # full-width letters make a word too: 0.625 / 1.625
        # Two words, the accents written as characters of their own.
        ("nai\u0308ve cafe\u0301 试", "en", 0.761905),
    ],
)
def test_the_share_of_words_in_the_target_language(text: str, target: Language, share: float) -> None:
    assert language_consistency(text, target) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("text", ["", "3 + 8 = 11", "x = 5", "<think> </think>", "×÷", "...", "123456", "π и α"])
def test_a_text_without_words_has_no_consistency(text: str) -> None:
    assert language_consistency(text, "en") is None
    assert language_consistency(text, "zh") is None


@pytest.mark.parametrize(
    "foreign",
    [
        r"$\text{area} = ab$", r"$$\sum_{item} price$$", "$$\nab\n= cd\n$$", r"\(ab + cd\)", r"\[ ab \\ cd \]",
        r"\(\text{so \{ it \} is}\)", r"\frac \alpha \quad", r"\begin{align*} \end{align*}",
        "`print(total)`", "```python\nprint(total)\n```", "```\nnever closed",
        "https://example.org/a/page?q=words", "www.example.org/page",
        "<think>", "</answer>",
    ],
)  # fmt: skip
def test_latex_code_and_addresses_are_of_no_language(foreign: str) -> None:
    assert language_consistency(foreign, "zh") is None
    assert language_consistency(f"试 {foreign}", "zh") == 1.0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("$5 and $6", 0.0),  # amounts, so `and` counts
        ("$5 and/$6", 0.0),
        ("she pays $ 5 and he $ 6", 0.0),
        (r"it costs \$5 and \$6", 0.0),
        ("`never closed", 0.0),
        (r"\( never closed", 0.0),
        ("$$ never closed", 0.0),
        (r"\boxed{试}", 1.0),  # the command goes, what it holds stays
    ],
)
def test_what_only_looks_like_latex_or_code_counts(text: str, share: float) -> None:
    assert language_consistency(text, "zh") == share


@pytest.mark.parametrize(
    ("line", "english_words"),
    [
        ("试 Natalia 大", 0),
        ("Natalia 试", 0),
        ("试 New York", 0),
        ("试 Albert、Betty、Carl、Dora 大", 0),
        ("试 iPhone 大", 0),
        ("试 5 km 大 sin x", 0),
        ("试 Natalia\nNatalia", 1),  # alone in its line there is nothing that makes it a name
        ("Wait，试", 1),  # a word that opens an English sentence
        ("试 Natalia sold 大", 2),  # one word of the stretch is no name
        ("试 One Two Three Four 大", 4),  # longer than a name
        ("试 try 大", 1),
    ],
)
def test_names_between_words_of_another_script_are_of_no_language(line: str, english_words: int) -> None:
    assert len(foreign_words(line, "zh")) == english_words
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in line) / 1.6
    assert language_consistency(line, "zh") == pytest.approx(chinese / (chinese + english_words))


@pytest.mark.parametrize(
    ("text", "target", "among", "share"),
    [
        ("привет мир", "ru", ("en", "zh"), 1.0),
        ("привет world", "ru", ("en", "zh"), 0.5),
        ("나는 학교에 갑니다", "ko", ("en", "zh"), 1.0),
        # A sentence with kana is Japanese, its Han characters too: 3 of 5 characters.
        ("私は猫。你好", "ja", ("en", "zh"), 3 / 5),
        ("私は猫。你好", "zh", ("en", "ja"), 2 / 5),
        # Where Japanese is not expected, each Han character is Chinese: 4 of 5.
        ("私は猫。你好", "zh", ("en", "zh"), 4 / 5),
        # Where only one language of the script is expected, all Latin words are in it.
        ("les deux nombres 和", "fr", ("zh",), 3 / 3.625),
    ],
)
def test_languages_that_scripts_tell_apart(text: str, target: str, among: tuple[str, ...], share: float) -> None:
    assert language_consistency(text, target, among) == pytest.approx(share)


@pytest.mark.parametrize(("target", "among"), [("english", ("en", "zh")), ("", ("en", "zh")), ("en", ("en", "xx"))])
def test_an_unknown_language_is_named(target: str, among: tuple[str, ...]) -> None:
    with pytest.raises(HoneError, match="is not known; known are: af ar"):
        language_consistency("so", target, among)


def test_languages_of_one_script_are_told_apart_by_the_sentence() -> None:
    pytest.importorskip("py3langid", reason="the extra [language] is not installed")
    text = "The answer is the sum of both numbers. La réponse est la somme des deux nombres. 试"
    # 8 English words, 8 French ones, 0.625 Chinese.
    assert language_consistency(text, "en", ("en", "fr")) == pytest.approx(8 / 16.625)
    assert language_consistency(text, "fr", ("en", "fr", "zh")) == pytest.approx(8 / 16.625)
    assert language_consistency(text, "en") == pytest.approx(16 / 16.625)  # where no French is expected


def test_a_missing_detector_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    assert language_consistency("la réponse", "en") == 1.0  # which needs none
    with pytest.raises(HoneError, match=r"telling en, sv apart needs py3langid: pip install 'hone-r1\[language\]'"):
        language_consistency("la réponse", "en", ("en", "sv"))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How many clips did she sell?", "en"),
        ("她一共卖了多少个夹子？", "zh"),
        ("Natalia 卖了多少个夹子？", "zh"),
        ("求 $\\text{the area of a circle}$ 的值", "zh"),
        ("What does 你好 mean?", "en"),
        ("48 + 24 = ?", "en"),
        ("", "en"),
    ],
)
def test_a_question_has_the_language_of_most_of_its_words(text: str, language: Language) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("try 试 high 所以", "en", ["试", "所", "以"]),
        ("try 试 high 所以", "zh", ["try", "high"]),
        ("<think> 试 x </think>", "zh", []),
        ("<think> ok </think> 试", "zh", ["ok"]),
        ("try 试 привет", "en", ["试", "привет"]),
        ("привет 试 try", "zh", ["привет", "try"]),  # in the order of the text
        ("so `print` $ab$ 试", "zh", ["so"]),
    ],
)
def test_foreign_words_are_found_where_they_stand(text: str, target: Language, words: list[str]) -> None:
    assert [text[start:end] for start, end in foreign_words(text, target)] == words


PIECES = [
    "so ",
    "we add ",
    "试",
    "所以",
    "Natalia ",
    "x ",
    "5 ",
    "$ab$",
    "$",
    "`",
    "```",
    "\\(",
    "\\",
    "\n",
    "，",
    "привет ",
]


@given(st.lists(st.sampled_from(PIECES)).map("".join), st.sampled_from(["我们先算", "所以答案", "ещё слово"]))
def test_a_foreign_line_never_raises_the_share(text: str, line: str) -> None:
    before, after = language_consistency(text, "en"), language_consistency(f"{text}\n{line}", "en")
    assert after is None or after <= (1.0 if before is None else before)
    before, after = language_consistency(text, "zh"), language_consistency(f"{text}\nso we add these", "zh")
    assert after is None or after <= (1.0 if before is None else before)


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_the_shares_of_two_languages_never_exceed_the_whole(text: str) -> None:
    english, chinese = language_consistency(text, "en"), language_consistency(text, "zh")
    assert (english is None) == (chinese is None)
    if english is not None and chinese is not None:
        assert 0 <= english <= 1
        assert english + chinese <= 1 + 1e-9
        assert (english == 1) == (not foreign_words(text, "en"))


def table() -> str:
    """Return the accuracy on the labelled lines, as docs/language.md shows it."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in LINES:
        groups[line["group"]].append(line)
    return "\n".join(_row(group, lines) for group, lines in [*groups.items(), ("all", LINES)])


def _row(group: str, lines: list[dict[str, Any]]) -> str:
    error = sum(map(_error, lines)) / len(lines)
    return f"| {group} | {len(lines)} | {error:.3f} | {sum(map(_main_language_is_found, lines))} |"


def _error(line: dict[str, Any]) -> float:
    words, share = line["words"], language_consistency(line["text"], line["target"], tuple(line["among"]))
    return abs((share or 0.0) - words.get(line["target"], 0) / sum(words.values()))


def _main_language_is_found(line: dict[str, Any]) -> bool:
    among = tuple(line["among"])
    found = max(among, key=lambda language: language_consistency(line["text"], language, among) or 0.0)
    return found == max(line["words"], key=line["words"].__getitem__)


def test_the_page_shows_the_accuracy_on_the_labelled_lines() -> None:
    pytest.importorskip("py3langid", reason="the extra [language] is not installed")
    assert table() in (ROOT / "docs" / "language.md").read_text()


@pytest.mark.skipif(not DATA.exists(), reason="the development data is not here")
@pytest.mark.parametrize(
    ("name", "language"), [("gsm8k_test", "en"), ("math500", "en"), ("mgsm_zh", "zh"), ("cmath", "zh")]
)
def test_questions_of_public_sets_have_their_language(name: str, language: Language) -> None:
    questions = [json.loads(row)["problem"] for row in (DATA / f"{name}.jsonl").read_text().splitlines()]
    assert {detect_language(question) for question in questions} == {language}
