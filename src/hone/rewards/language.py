"""Language consistency: the share of the words of the chain of thought that are in the target language.

By script: a run of Latin letters is one word, and 1.6 Han characters count as one. Numbers, symbols, tags and names of
unknowns (single Latin letters) are of no language.
"""

from __future__ import annotations

import re

from hone.types import Language

HAN_CHARACTERS_A_WORD = 1.6
_LATIN = re.compile(r"[A-Za-zÀ-ÖØ-öø-ɏ]{2,}")  # without the signs × and ÷, which stand among those letters
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_TAG = re.compile(r"</?(?:think|answer)>")


def language_consistency(text: str, target: Language) -> float | None:
    """Return the share, 0 to 1, of the words of `text` in the target language; None where it has no words."""
    text = _TAG.sub(" ", text)
    counts = {"en": float(len(_LATIN.findall(text))), "zh": len(_HAN.findall(text)) / HAN_CHARACTERS_A_WORD}
    total = sum(counts.values())
    return counts[target] / total if total else None


def foreign_words(text: str, target: Language) -> list[tuple[int, int]]:
    """Return where the words of the other language stand, as (start, end)."""
    text = _TAG.sub(lambda match: " " * len(match.group()), text)
    return [match.span() for match in (_HAN if target == "en" else _LATIN).finditer(text)]
