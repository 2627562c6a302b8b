"""Language consistency: the share of the words of the chain of thought that are in the target language.

Words are told apart by script: a run of two or more letters is one word, and so are 1.6 Han characters or kana. Where
two languages that may occur share a script, as English and French do, `py3langid` tells them apart, a sentence at a
time; nothing else needs it. Not counted are LaTeX, code, URLs, tags, numbers, unknowns of one letter, and names:
between words of another script, at most three Latin words which all have a capital (`Natalia`, `New York`) or are units
or functions (`km`, `sin`), but for words that open English sentences (`Wait`).

This module does not know grammar: a word in the right script counts, whether or not it makes sense.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import Any

from hone.types import HoneError, Language

HAN_CHARACTERS_A_WORD = 1.6
MAX_NAME_WORDS = 3

# The letters of each script, without the digits and signs that stand among them.
_LETTERS = {
    "Latin": r"A-Za-zÀ-ÖØ-öø-ɏ\u0300-\u036f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a",
    "Han": r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",
    "Kana": r"\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9f",
    "Hangul": r"\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3",
    "Greek": r"\u0370-\u037d\u0386-\u03ff\u1f00-\u1fff",
    "Cyrillic": r"\u0400-\u052f",
    "Armenian": r"\u0531-\u0587",
    "Hebrew": r"\u0591-\u05f4",
    "Arabic": r"\u0610-\u061a\u0620-\u065f\u066e-\u06d3\u06d5-\u06ef\u06fa-\u06ff\u0750-\u077f",
    "Devanagari": r"\u0900-\u0963\u0971-\u097f",
    "Bengali": r"\u0980-\u09e5",
    "Tamil": r"\u0b80-\u0be5",
    "Telugu": r"\u0c00-\u0c65",
    "Thai": r"\u0e01-\u0e4e",
    "Georgian": r"\u10a0-\u10ff",
    "other": r"\u0700-\u074f\u0780-\u08ff\u0a00-\u0b7f\u0c80-\u0dff\u0e80-\u109f\u1200-\u1cff",
}
_LANGUAGES = {
    ("Latin",): (
        "af ca cs cy da de en eo es et eu fi fr ga gl ha hr hu id is it la lt lv ms mt nl nn no pl pt ro sk sl so sq "
        "sv sw tl tr uz vi xh yo zu"
    ),
    ("Han",): "zh",
    ("Han", "Kana"): "ja",
    ("Hangul",): "ko",
    ("Greek",): "el",
    ("Cyrillic",): "be bg kk ky mk mn ru sr tg tt uk",
    ("Armenian",): "hy",
    ("Hebrew",): "he",
    ("Arabic",): "ar fa ps ug ur",
    ("Devanagari",): "hi mr ne sa",
    ("Bengali",): "as bn",
    ("Tamil",): "ta",
    ("Telugu",): "te",
    ("Thai",): "th",
    ("Georgian",): "ka",
}
_SCRIPTS = {language: scripts for scripts, names in _LANGUAGES.items() for language in names.split()}

_ONE_CHARACTER = ("Han", "Kana")  # a character is a match, and 1.6 of them are a word
_WORDS = {
    script: re.compile(f"[{letters}]" + ("" if script in _ONE_CHARACTER else "+" if script == "Hangul" else "{2,}"))
    for script, letters in _LETTERS.items()
}
_RARE = re.compile(f"[{''.join(letters for script, letters in _LETTERS.items() if script not in ('Latin', 'Han'))}]")

# No alternative looks at a character more than a few times, however often it is opened and never closed.
_NOT_PROSE = re.compile(
    r"""
      (?s:```.*?(?:```|\Z))             # fenced code, up to the end where it was cut
    | `[^`\n]++`
    | \$\$[^$]++\$\$
    | \$(?=\S)[^$\n]++(?<=\S)\$(?!\d)   # not the amounts in "$5 and $6"
    | \\\([^\\]*+(?:\\[^()][^\\]*+)*+\\\)
    | \\\[[^\\]*+(?:\\[^\[\]][^\\]*+)*+\\\]
    | \\(?:begin|end)\{\w*\*?\}
    | \\(?:[A-Za-z]+|[^A-Za-z(\[])
    | (?:https?://|www\.)[!-~]+
    | </?(?:think|answer)>
    """,
    re.VERBOSE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|[\n。！？；]+")

# What bounds a name: letters of another script, where Greek ones are often unknowns, and Chinese punctuation.
_BESIDE_NAMES = "".join(letters for script, letters in _LETTERS.items() if script not in ("Latin", "Greek"))
_HAS_OTHER_SCRIPT = re.compile(f"[{_BESIDE_NAMES}]")
_BETWEEN_OTHER_SCRIPTS = re.compile(rf"[^{_BESIDE_NAMES}\u3001-\u3003\u3008-\u303f\uff08-\uff0f\uff1a-\uff1f]+")
_UNITS_AND_FUNCTIONS = (
    "mm cm dm km mg kg ml min ms kw hz mol sin cos tan cot sec csc arcsin arccos arctan log ln lg exp lim max mod"
)
_OPENS_A_SENTENCE = (
    "actually add also alternatively although and answer are assistant assume at because but can check compute "
    "consider denote does each finally find first for from given hence here hmm how however if in is it last let "
    "maybe multiply next no not note now ok okay on or otherwise perhaps please question second similarly since so "
    "solution solve step subtract suppose sure that the then there therefore these they third this thus to try user "
    "verify wait we what when where which why yes you"
)
_ALWAYS_NAMES = frozenset(_UNITS_AND_FUNCTIONS.split())
_NEVER_NAMES = frozenset(_OPENS_A_SENTENCE.split())


def language_consistency(text: str, target: str, among: tuple[str, ...] = ("en", "zh")) -> float | None:
    """Return the share, 0 to 1, of the words of `text` in the target language; None where it has no words.

    `target` and `among`, the languages that may occur, are ISO 639-1 codes; an unknown one is a `HoneError`. Words in a
    script that is not the target's are foreign whatever `among` says. Where `among` holds another language of the
    target's script, sentences are classified: by kana for Japanese and Chinese, by `py3langid` for all others.
    """
    scripts, rivals = _scripts(target), _rivals(target, among)
    prose = _prose(text)
    counts = _count(prose)
    total = sum(counts.values())
    if not total:
        return None
    if not rivals:
        return sum(counts.get(script, 0.0) for script in scripts) / total
    return sum(_words_of(sentence, target, rivals) for sentence in _SENTENCE_END.split(prose)) / total


def detect_language(text: str) -> Language:
    """Return "zh" where Chinese words outnumber Latin ones, else "en", also for a text without words."""
    counts = _count(_prose(text))
    return "zh" if counts.get("Han", 0.0) > counts["Latin"] else "en"


def foreign_words(text: str, target: str) -> list[tuple[int, int]]:
    """Return where words in another script than the target's stand, as (start, end), in order."""
    prose, scripts = _prose(text), _scripts(target)
    patterns = [pattern for script, pattern in _WORDS.items() if script not in scripts]
    return sorted(match.span() for pattern in patterns for match in pattern.finditer(prose))


def _scripts(language: str) -> tuple[str, ...]:
    if language not in _SCRIPTS:
        raise HoneError(f"language {language!r} is not known; known are: {' '.join(sorted(_SCRIPTS))}")
    return _SCRIPTS[language]


@cache
def _rivals(target: str, among: tuple[str, ...]) -> tuple[str, ...]:
    """Return the languages that share a script with the target."""
    own = set(_scripts(target))
    return tuple(language for language in among if language != target and own & set(_scripts(language)))


def _blank(match: re.Match[str]) -> str:
    return " " * len(match.group())


def _prose(text: str) -> str:
    """Return the text with all that does not count replaced by as many spaces."""
    prose = _NOT_PROSE.sub(_blank, text)
    if prose.isascii() or not _WORDS["Latin"].search(prose):
        return prose
    return "\n".join(map(_without_names, prose.split("\n")))


def _without_names(line: str) -> str:
    return _BETWEEN_OTHER_SCRIPTS.sub(_blank_name, line) if _HAS_OTHER_SCRIPT.search(line) else line


def _blank_name(between: re.Match[str]) -> str:
    words = _WORDS["Latin"].findall(between.group())
    is_name = 0 < len(words) <= MAX_NAME_WORDS and all(map(_may_be_name, words))
    return _blank(between) if is_name else between.group()


def _may_be_name(word: str) -> bool:
    small = word.lower()
    return small in _ALWAYS_NAMES or (word != small and small not in _NEVER_NAMES)


def _count(prose: str) -> dict[str, float]:
    """Return the number of words in each script."""
    if prose.isascii():
        return {"Latin": float(len(_WORDS["Latin"].findall(prose)))}
    scripts = _WORDS if _RARE.search(prose) else ("Latin", "Han")
    matches = {script: float(len(_WORDS[script].findall(prose))) for script in scripts}
    return {script: n / HAN_CHARACTERS_A_WORD if script in _ONE_CHARACTER else n for script, n in matches.items()}


def _words_of(sentence: str, target: str, rivals: tuple[str, ...]) -> float:
    """Return how many words of a sentence are in the target language rather than in one that shares its script."""
    counts = _count(sentence)
    words = sum(counts.get(script, 0.0) for script in _scripts(target))
    if not words:
        return 0.0
    if "Han" in counts and "Han" in _scripts(target):
        found = "ja" if counts.get("Kana") else "zh"
    else:
        languages = (target, *rivals)
        told = detector(languages, f"telling {', '.join(languages)} apart needs")
        found = told.classify(sentence.encode("utf-8", "ignore"))[0]
    return words if found == target else 0.0


@cache
def detector(languages: tuple[str, ...], whose_need: str = "telling languages apart needs") -> Any:
    """Return what names the language of a text, one of these; `HoneError` where the extra [language] is missing."""
    try:
        langid = importlib.import_module("py3langid.langid")
    except ModuleNotFoundError as error:
        raise HoneError(f"{whose_need} py3langid: pip install 'hone-r1[language]'") from error
    found = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    found.set_languages(languages)
    return found
