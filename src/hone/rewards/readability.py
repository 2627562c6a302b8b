"""How readable a text is: repetition, loops, long paragraphs, code, a summary. Rejection sampling filters by these.

Small measures of one text, each in time linear in its length. This module does not know what is too much: that is for
whoever filters.
"""

from __future__ import annotations

import re

from hone.rewards.format import split_completion
from hone.rewards.language import HAN_CHARACTERS_A_WORD

REPEAT_WINDOW = 8  # words
REPEAT_WINDOW_UNSPACED = round(REPEAT_WINDOW * HAN_CHARACTERS_A_WORD)  # characters
LOOP_TIMES, LOOP_CHARACTERS, LONGEST_PERIOD = 4, 100, 2000

_UNSPACED = r"\u3005\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han and kana
_CHARACTER = re.compile(f"[{_UNSPACED}]")
_CHARACTER_OR_SIGN = re.compile(rf"[{_UNSPACED}\u3000-\u303f\uff01-\uff0f\uff1a-\uff20]")
_CHARACTER_OR_RUN = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED}]+")
_PARAGRAPH_END = re.compile(r"\n\s*\n")
_FENCE = re.compile(r"^[ \t]*(```|~~~)(?!.*```)", re.MULTILINE)


def repetition(text: str) -> float:
    """Return the share of a text's windows of eight words that stood in it before; 0 for a shorter text.

    In a text that runs on for 13 Han characters or kana without a space, each of them is a unit, and a window has 13.
    """
    units, window = text.split(), REPEAT_WINDOW
    if _CHARACTER.search(text) and any(len(_CHARACTER.findall(word)) >= REPEAT_WINDOW_UNSPACED for word in units):
        units = [unit for word in units for unit in _CHARACTER_OR_RUN.findall(word)]
        window = REPEAT_WINDOW_UNSPACED
    num_windows = len(units) - window + 1
    if num_windows < 1:
        return 0.0
    return 1 - len(set(zip(*(units[start:] for start in range(window)), strict=False))) / num_windows


def ends_in_loop(text: str) -> bool:
    """Return whether a text ends, as one that was cut in an endless loop does, by repeating itself to the letter.

    The end must be one period, of at most 2000 characters, four times or more, and 100 characters or more; the last one
    may be cut anywhere.
    """
    tail = text.rstrip()[-LOOP_TIMES * LONGEST_PERIOD :]
    end = tail[-LOOP_CHARACTERS // LOOP_TIMES :]
    place = len(tail) - len(end)
    while (place := tail.rfind(end, 0, place + len(end) - 1)) >= 0:  # only where the end stood before, it may repeat
        period = len(tail) - len(end) - place
        span = max(LOOP_CHARACTERS, LOOP_TIMES * period)
        if period > LONGEST_PERIOD or span > len(tail):
            return False
        if tail[-span:-period] == tail[-span + period :]:
            return True
    return False


def longest_paragraph(text: str) -> float:
    """Return the number of words between blank lines, at most; 1.6 Han characters or kana are one."""
    return max(map(_num_words, _PARAGRAPH_END.split(text)))


def code_blocks(text: str) -> int:
    """Return the number of fenced code blocks; one that is never closed counts too."""
    num_blocks, opened = 0, None
    for fence in _FENCE.findall(text):
        if opened is None:
            num_blocks, opened = num_blocks + 1, fence
        elif fence == opened:
            opened = None
    return num_blocks


def has_summary(text: str) -> bool:
    """Return whether a completion, after its thinking, says more to the user than the bare answer between its tags."""
    parts = split_completion(text)
    return parts.readable and bool(parts.summary) and parts.summary != parts.answer


def _num_words(paragraph: str) -> float:
    characters = len(_CHARACTER.findall(paragraph))
    return characters / HAN_CHARACTERS_A_WORD + len(_CHARACTER_OR_SIGN.sub(" ", paragraph).split())
