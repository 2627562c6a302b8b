"""Where the final answer stands in an output. Finds text, and knows nothing of what it means or is worth.

Several boxes: those joined only by commas, "and", "or" (且, 或) or nothing are one answer, a list; otherwise the last
one counts. A box or a code block that is not closed was cut off and does not count. Everything here takes time linear
in the length of the text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from hone.rewards.format import split_completion
from hone.types import HoneError

EXTRACTIONS = ("tags", "boxed", "phrase", "choice", "code", "auto", "summary")


def extract(text: str, how: str) -> str | None:
    """Return the final answer of an output, or None where there is none. `how` is one of `EXTRACTIONS`.

    - `tags`: what stands in the one pair of answer tags; a box in there is unwrapped.
    - `boxed`: the last box of what follows the thinking, or of the whole text where there are no think tags.
    - `phrase`: what follows the last "the answer is", "answer:", "答案是", "答案为" or "####".
    - `choice`: the letter A to J that is chosen.
    - `code`: the last fenced code block.
    - `summary`: what the user sees, everything after the thinking; all of an output without tags.
    - `auto`: for outputs of unknown form: the box, else the tags, else the phrase, else the whole text where it is no
      prose, else its last formula or number.
    Whatever stands in a chain of thought that was opened and never closed is no answer.
    """
    if how not in _EXTRACTORS:
        raise HoneError(f"no way of extraction is called {how!r}; there are {', '.join(EXTRACTIONS)}")
    return _EXTRACTORS[how](text)


def _tags(text: str) -> str | None:
    answer = split_completion(text).answer
    if answer is None:
        return None
    return _join_boxes(answer) or answer


def _summary(text: str) -> str | None:
    return split_completion(text).summary or None


def _boxed(text: str) -> str | None:
    after = _after_thinking(text)
    return None if after is None else _join_boxes(after)


def _auto(text: str) -> str | None:
    after = _after_thinking(text)
    if after is None:
        return None
    return _join_boxes(after) or _tags(text) or _last_phrase(after) or _answer_in(after)


def _after_thinking(text: str) -> str | None:
    """Return what follows the chain of thought; None where it was opened and never closed."""
    closed = text.rfind("</think>")
    if text.rfind("<think>") > closed:
        return None
    return text[closed + len("</think>") :] if closed >= 0 else text


# --- boxes ---

_BRACES = re.compile(r"\\{1,4}f?box(?:ed)?(?![A-Za-z])\s*(?P<open>\{)?|\\.|[{}]", re.DOTALL)
_UNBRACED = re.compile(r"[^\s$\\{}]+|\\[A-Za-z]+(?:\{[^{}]*\})*")
_BETWEEN = re.compile(r"\\(?:text|mbox|mathrm)\s*\{([^{}]*)\}|\\(?:quad|qquad|[,;:! ()\[\]])|\$|[()\[\]]")
_WORDS_AND = r"(?:[\w() ]{0,25}\b)?(?:and|or)\b|且|或|和|与|及"
_NAME_IS = r"(?:\\?[A-Za-z][A-Za-z0-9_{}]{0,15}\s*=)?"
_JOINER = re.compile(rf"\s*(?:[,;，、；]?\s*(?:{_WORDS_AND})|[,;，、；])?\s*{_NAME_IS}\s*")
MAX_BETWEEN, MAX_BOX_DEPTH, MAX_COMMAND = 60, 3, 8  # characters, boxes in boxes, characters of the longest spelling


class _Box(NamedTuple):
    start: int
    end: int
    content_start: int
    content_end: int


def _join_boxes(text: str, depth: int = 0) -> str | None:
    """Return the content of the last box with those that it is joined to, in order, without repetitions."""
    boxes = _boxes(text)
    if not boxes:
        return None
    first = len(boxes) - 1
    while first and _are_joined(text, boxes[first - 1].end, boxes[first].start):
        first -= 1
    contents = dict.fromkeys(_unwrap(text[box.content_start : box.content_end], depth) for box in boxes[first:])
    return ", ".join(content for content in contents if content) or None


def _boxes(text: str) -> list[_Box]:
    """Return the outermost closed boxes in the order in which they stand."""
    first = text.find("box")
    if first < 0:
        return []
    boxes: list[_Box] = []
    open_braces: list[tuple[int, int] | None] = []  # for each open brace, the box that it opens
    for match in _BRACES.finditer(text, max(0, first - MAX_COMMAND)):
        token = match.group()
        if token == "}":
            if open_braces and (opened := open_braces.pop()):
                while boxes and boxes[-1].start > opened[0]:
                    boxes.pop()
                boxes.append(_Box(opened[0], match.end(), opened[1], match.start()))
        elif token == "{":
            open_braces.append(None)
        elif match["open"]:
            open_braces.append((match.start(), match.end()))
        elif "box" in token and (value := _UNBRACED.match(text, match.end())):
            boxes.append(_Box(match.start(), value.end(), value.start(), value.end()))
    return boxes


def _are_joined(text: str, start: int, end: int) -> bool:
    return end - start <= MAX_BETWEEN and bool(_JOINER.fullmatch(_BETWEEN.sub(r" \1 ", text[start:end])))


def _unwrap(content: str, depth: int) -> str:
    """Return what a box holds; boxes inside it are unwrapped too, where they are all there is."""
    inner = _boxes(content) if depth < MAX_BOX_DEPTH else []
    if inner and not (content[: inner[0].start] + content[inner[-1].end :]).strip():
        return _join_boxes(content, depth + 1) or ""
    return content.strip()


# --- phrases, formulas, numbers ---

_PHRASE = re.compile(
    r"\bans(?:wers?)?\b\**\s*(?:(?:is|are|was|be)\b|[:：=]|(?=\$|\\[(\[]))|####"
    r"|(?:答案|最[终后](?:结果|答案))\s*(?:是|为|就是|应为|应选|选|[:：])|答\s*[:：]|选择?\s*(?:[:：]\s*|(?=[A-J]))",
    re.IGNORECASE,
)
_LEAD = re.compile(r"[\s*:：=]*(?:(?:therefore|thus|then|hence|simply|just|exactly|equal to)\b[\s*,:]*)?")
_END_OF_SENTENCE = re.compile(r"\n|,?\s\(?(?:because|since|rather|not)\b|。|\.(?=\s|$|\*)|<\|")
_FORMULA = re.compile(r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_FORMULAS = re.compile(
    rf"(?:{_FORMULA.pattern})(?:\s*(?:,\s*)?(?:and|or|且|或)?\s*(?:{_FORMULA.pattern}))*\s*%?", re.DOTALL
)
_NO_UNIT = (
    r"(?:an?|as|at|by|for|from|if|in(?= [a-z])|is|of|on|so|to|the|and|or|but|with|than|more|per|each|when|are|was)"
)
_UNIT = (
    r"(?:\s?(?:%|per\s?cent|元|[€£¥°]|[a-zA-Zµ]{1,5}[²³]|"
    rf"(?:(?:sq|square|cubic)\s)?(?!{_NO_UNIT}\b)[a-z]{{1,12}}(?:/[a-z]{{1,4}}|\sper\s[a-z]{{1,12}})?\b|"
    r"(?:平方|立方)?[\u4e00-\u9fff]{1,2}(?:/[\u4e00-\u9fff]{1,2})?))?"
)
_NUMBER = re.compile(
    rf"(?<![A-Za-z0-9_.])[-−+]?(?:\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:[.,/]\d+)?|\.\d+){_UNIT}(?![\dA-Z_])"
)
_TEXT = re.compile(r"\\(?:text|mbox|mathrm)\w*\s*\{[^{}]*\}|\\[A-Za-z]+|\b(?:and|or)\b")
_PROSE = re.compile(
    r"[A-Za-z'’]{2,}[,:]?\s+\$?[A-Za-z'’]+[,:]?\s+\S|[A-Za-z]{2,} [A-Za-z]{2,}|[\u4e00-\u9fff]{5}"
    r"|^\D*[\u4e00-\u9fff](?<!第)\s*[$\\\w=<>+-]*\d"
)
_AFTER_HAN = re.compile(r"[\u4e00-\u9fff][\s，,:：]*([A-Za-z\d\\(\[|{+-][^\u4e00-\u9fff]*)\Z")
_FEW_WORDS = re.compile(r"[A-Za-z'’-]+(?: [A-Za-z'’-]+){0,4}|[\u4e00-\u9fff]{1,12}")
MAX_BARE, MAX_TAIL = 300, 3000  # these patterns are quadratic at worst, so they see the end of a text alone


def _phrase(text: str) -> str | None:
    after = _after_thinking(text)
    return None if after is None else _last_phrase(after)


def _last_phrase(text: str) -> str | None:
    """Return the answer that follows the last phrase which announces one."""
    last = _last_match(_PHRASE, text)
    if last is None:
        return None
    lead = _LEAD.match(text, last.end())
    start = lead.end() if lead else last.end()
    if formulas := _FORMULAS.match(text[start : start + MAX_TAIL]):
        return formulas.group().strip()
    end = _END_OF_SENTENCE.search(text, start)
    return _answer_in(text[start : end.start() if end else len(text)])


def _answer_in(text: str) -> str | None:
    """Return the whole text where it is an answer by itself, else its last formula or number; None for mere prose."""
    text = text[-MAX_TAIL:].strip(" \t\r\n*。．`“”")
    if len(text) <= MAX_BARE and not _PROSE.search(_TEXT.sub(" ", text)):
        return text or None
    formula = _last_match(_FORMULAS, text)
    if formula is None and (tail := _AFTER_HAN.search(text)) and not _PROSE.search(_TEXT.sub(" ", tail[1])):
        return tail[1]
    number = _last_match(_NUMBER, text[formula.end() if formula else 0 :])
    if number:
        return number.group().strip()
    if formula:
        return formula.group().strip()
    few_words = _FEW_WORDS.fullmatch(text.rstrip("."))
    return few_words.group() if few_words else None


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


# --- letters ---

_ONLY_LETTER = re.compile(r"\W{0,9}(?:(?:text|mathrm|mbox|textbf|mathbf)\W{0,9})?([A-Ja-j])\W{0,9}")
_FIRST_LETTER = re.compile(r"[\s*(（]*([A-J])(?:[.):：、）*]|\s+[A-Z]|\s*$)")
_AT_ONCE = re.compile(r"[\s*:：(（$]*([A-J])(?![A-Za-z0-9'’])")
_ALONE = re.compile(r"(?<![A-Za-z0-9'’])(A(?! [a-z])|I(?! [a-z])|[B-HJ])(?![A-Za-z0-9'’])")  # not the words A and I
_SEVERAL = re.compile(  # "A, B", "(A) or (B)": whoever names more than one has not chosen
    r"[\s*:：(（$\[]{0,9}(?:\\(?:text|mathrm|mbox|textbf|mathbf)\s?\{[\s(（]{0,9})?"
    r"[A-J](?:[\s)）\]]{0,9}(?:[,，、/&;+]|and|or|和|或|与)[\s(（\[]{0,9}[A-J](?![A-Za-z0-9'’]))+"
)
_IN_BRACKETS = re.compile(r"[(（\[]\s*([A-J])\s*[)）\]]")


def _choice(text: str) -> str | None:
    """Return the chosen letter, a capital: boxed, tagged or announced, else the first of all or the last alone.

    Where several are named at once, they are returned as they stand, which is no letter.
    """
    after = _after_thinking(text)
    if after is None:
        return None
    for answer in (_join_boxes(after), _tags(text)):
        if answer is not None:
            return _letter(answer)
    announced = _last_match(_PHRASE, after)
    if announced:
        if several := _SEVERAL.match(after, announced.end()):
            return several.group().strip()
        letter = _AT_ONCE.match(after, announced.end()) or _ALONE.search(after, announced.end())
        if letter:
            return letter[1]
    return _letter(after)


def _letter(text: str) -> str | None:
    if only := _ONLY_LETTER.fullmatch(text):
        return only[1].upper()
    if several := _SEVERAL.match(text):
        return several.group().strip()
    letter = _FIRST_LETTER.match(text) or _last_match(_IN_BRACKETS, text) or _last_match(_ALONE, text)
    return letter[1] if letter else None


# --- programs ---

_FENCE = re.compile(r"^[ \t]*```[^\n`]*$", re.MULTILINE)


def _code(text: str) -> str | None:
    after = _after_thinking(text)
    if after is None:
        return None
    fences = list(_FENCE.finditer(after))
    if len(fences) < 2:
        return None
    last = len(fences) // 2 * 2 - 1  # fences open and close in turns; one left over was never closed
    return after[fences[last - 1].end() + 1 : fences[last].start()]


_EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "tags": _tags,
    "boxed": _boxed,
    "phrase": _phrase,
    "choice": _choice,
    "code": _code,
    "auto": _auto,
    "summary": _summary,
}
