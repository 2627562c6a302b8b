"""The 25 kinds of verifiable instruction of IFEval (Zhou et al. 2023, arXiv 2311.07911): a pure function each.

A function is named like its instruction, gets a reply that is not blank and the instruction's arguments, and says
whether the reply follows it, by the definitions of the official checkers. `KINDS` is the table of them, with what each
argument must be. Words that an argument names are text here, never patterns, and every check is linear in the length of
the reply. Languages are told apart by `py3langid`, the extra [language].
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hone.rewards.language import detector
from hone.rewards.sentences import count_capital_words, split_sentences

MAX_WORD = 200  # characters of what is searched for, which bounds the time that a search takes
LESS, AT_LEAST = RELATIONS = ("less than", "at least")
# The languages among which a reply's is sought: those of the official checker's detector.
_LANGUAGES = (
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro "
    "ru sk sl so sq sv sw ta te th tl tr uk ur vi zh"
)
LANGUAGES = tuple(_LANGUAGES.split())
_NEED = "instructions about the language of a reply need"


def _compare(number: int, relation: str, limit: int) -> bool:
    return number < limit if relation == LESS else number >= limit


# --- keywords ---


def keyword_existence(reply: str, *, keywords: Sequence[str]) -> bool:
    return all(_occurrences(reply, keyword) for keyword in keywords)


def keyword_frequency(reply: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return _compare(_occurrences(reply, keyword.strip()), relation, frequency)


def forbidden_words(reply: str, *, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", reply, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(reply: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compare(reply.lower().count(letter.lower()), let_relation, let_frequency)


def _occurrences(reply: str, keyword: str) -> int:
    """Return how often a keyword occurs, also inside of words, without regard to case."""
    return len(re.findall(re.escape(keyword), reply, re.IGNORECASE))


# --- language ---


def response_language(reply: str, *, language: str) -> bool:
    return language_of(reply) in (language, None)


def english_capital(reply: str) -> bool:
    return reply.isupper() and language_of(reply) in ("en", None)


def english_lowercase(reply: str) -> bool:
    return reply.islower() and language_of(reply) in ("en", None)


def capital_word_frequency(reply: str, *, capital_frequency: int, capital_relation: str) -> bool:
    return _compare(count_capital_words(reply), capital_relation, capital_frequency)


_ADDRESS = re.compile(r"(?:https?://|www\.)\S+")


def language_of(text: str) -> str | None:
    """Return which of `LANGUAGES` a text is in, whatever its case; None where no letters stand outside addresses."""
    prose = _ADDRESS.sub(" ", text)
    return str(detector(LANGUAGES, _NEED).classify(prose.lower())[0]) if any(map(str.isalpha, prose)) else None


# --- length ---


def number_words(reply: str, *, num_words: int, relation: str) -> bool:
    return _compare(len(re.findall(r"\w+", reply)), relation, num_words)


def number_sentences(reply: str, *, num_sentences: int, relation: str) -> bool:
    return _compare(len(split_sentences(reply)), relation, num_sentences)


def number_paragraphs(reply: str, *, num_paragraphs: int) -> bool:
    """Paragraphs stand between `***`; only the first and the last may be blank, and are then none."""
    filled = [bool(paragraph.strip()) for paragraph in reply.split("***")]
    return all(filled[1:-1]) and sum(filled) == num_paragraphs


def nth_paragraph_first_word(reply: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Paragraphs stand between empty lines; blank ones are not counted, but keep their place."""
    paragraphs = reply.split("\n\n")
    num_filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    words = paragraphs[nth_paragraph - 1].split() if nth_paragraph <= num_filled else []
    if num_filled != num_paragraphs or not words:
        return False
    word = re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'), maxsplit=1)[0]
    return word.lower() == first_word.lower()


# --- detectable content and format ---


def number_placeholders(reply: str, *, num_placeholders: int) -> bool:
    """A placeholder is `[...]` within a line."""
    closed = (part for line in reply.split("\n") for part in line.split("]")[:-1])
    return sum("[" in part for part in closed) >= num_placeholders


def postscript(reply: str, *, postscript_marker: str) -> bool:
    marker, reply = postscript_marker.strip(), reply.lower()
    spaced = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, re.escape(marker.lower()))
    return bool(re.search(spaced, reply))


def number_bullet_lists(reply: str, *, num_bullets: int) -> bool:
    """A bullet is a line that opens with `-`, or with one `*`; a `*` alone takes the next line with it."""
    lines = [line.lstrip() for line in reply.split("\n")]
    num_found = sum(line.startswith("-") for line in lines)
    taken = -1
    for number, line in enumerate(lines):
        if number == taken or not line.startswith("*") or line[1:2] == "*":
            continue
        if line == "*":
            if number + 1 == len(lines):
                break
            taken = number + 1
        num_found += 1
    return num_found == num_bullets


def constrained_response(reply: str) -> bool:
    return any(f"My answer is {answer}." in reply for answer in ("yes", "no", "maybe"))


def number_highlighted_sections(reply: str, *, num_highlights: int) -> bool:
    """A highlight is `*...*` within a line, around something; `**...**` counts besides."""
    single = (found.strip("*") for found in re.findall(r"\*[^\n*]*\*", reply))
    double = re.findall(r"\*\*([^\n*]*)\*\*", reply)
    return sum(bool(inside.strip()) for inside in (*single, *double)) >= num_highlights


def multiple_sections(reply: str, *, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(re.escape(section_spliter.strip()) + r"\s?\d+", reply)) >= num_sections


def json_format(reply: str) -> bool:
    """The whole reply is JSON, in a fence or not."""
    inside = reply.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        inside = inside.removeprefix(fence)
    try:
        json.loads(inside.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(reply: str) -> bool:
    """A title is `<<...>>` within a line, around something."""
    for line in reply.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start <= end - 3 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


# --- combination, start and end, punctuation ---


def two_responses(reply: str) -> bool:
    """Two different responses with `******` between them; what is before the first and after the last may be blank."""
    parts = [part.strip() for part in reply.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(reply: str, *, prompt_to_repeat: str) -> bool:
    return reply.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(reply: str, *, end_phrase: str) -> bool:
    return reply.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(reply: str) -> bool:
    inside = reply.strip()
    return len(inside) > 1 and inside[0] == inside[-1] == '"'


def no_comma(reply: str) -> bool:
    return "," not in reply


# --- the table ---


class Kind(NamedTuple):
    """A kind of instruction: whether a reply follows it, and what its arguments are (see `ARGUMENTS`)."""

    follows: Callable[..., bool]
    arguments: Mapping[str, str] = {}
    reads_language: bool = False


KINDS: dict[str, Kind] = {
    "keywords:existence": Kind(keyword_existence, {"keywords": "words"}),
    "keywords:frequency": Kind(keyword_frequency, {"keyword": "word", "frequency": "count", "relation": "relation"}),
    "keywords:forbidden_words": Kind(forbidden_words, {"forbidden_words": "words"}),
    "keywords:letter_frequency": Kind(
        letter_frequency, {"letter": "character", "let_frequency": "count", "let_relation": "relation"}
    ),
    "language:response_language": Kind(response_language, {"language": "language"}, reads_language=True),
    "length_constraints:number_sentences": Kind(number_sentences, {"num_sentences": "count", "relation": "relation"}),
    "length_constraints:number_paragraphs": Kind(number_paragraphs, {"num_paragraphs": "count"}),
    "length_constraints:number_words": Kind(number_words, {"num_words": "count", "relation": "relation"}),
    "length_constraints:nth_paragraph_first_word": Kind(
        nth_paragraph_first_word, {"num_paragraphs": "count", "nth_paragraph": "ordinal", "first_word": "word"}
    ),
    "detectable_content:number_placeholders": Kind(number_placeholders, {"num_placeholders": "count"}),
    "detectable_content:postscript": Kind(postscript, {"postscript_marker": "word"}),
    "detectable_format:number_bullet_lists": Kind(number_bullet_lists, {"num_bullets": "count"}),
    "detectable_format:constrained_response": Kind(constrained_response),
    "detectable_format:number_highlighted_sections": Kind(number_highlighted_sections, {"num_highlights": "count"}),
    "detectable_format:multiple_sections": Kind(
        multiple_sections, {"section_spliter": "word", "num_sections": "count"}
    ),
    "detectable_format:json_format": Kind(json_format),
    "detectable_format:title": Kind(title),
    "combination:two_responses": Kind(two_responses),
    "combination:repeat_prompt": Kind(repeat_prompt, {"prompt_to_repeat": "text"}),
    "startend:end_checker": Kind(end_checker, {"end_phrase": "text"}),
    "startend:quotation": Kind(quotation),
    "change_case:capital_word_frequency": Kind(
        capital_word_frequency, {"capital_frequency": "count", "capital_relation": "relation"}
    ),
    "change_case:english_capital": Kind(english_capital, reads_language=True),
    "change_case:english_lowercase": Kind(english_lowercase, reads_language=True),
    "punctuation:no_comma": Kind(no_comma),
}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_word(value: object) -> bool:
    return _is_text(value) and len(str(value)) <= MAX_WORD


# What an argument must be: in words, and as a check.
ARGUMENTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "count": ("a whole number from 0 on", lambda value: _is_whole(value) and value >= 0),
    "ordinal": ("a whole number from 1 on", lambda value: _is_whole(value) and value >= 1),
    "relation": ("'less than' or 'at least'", lambda value: isinstance(value, str) and value in RELATIONS),
    "text": ("text that is not blank", _is_text),
    "word": (f"text of 1 to {MAX_WORD} characters, not blank", _is_word),
    "words": (
        f"a list of texts of 1 to {MAX_WORD} characters, not blank",
        lambda value: isinstance(value, list) and bool(value) and all(map(_is_word, value)),
    ),
    "character": ("one character", lambda value: _is_text(value) and len(value) == 1),
    "language": (f"one of {' '.join(LANGUAGES)}", lambda value: isinstance(value, str) and value in LANGUAGES),
}
