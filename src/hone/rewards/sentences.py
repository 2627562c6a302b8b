"""Sentences and words of English text, as the tokenizers count them that IFEval's definitions name.

Sentences are those of Punkt (Kiss and Strunk 2006, "Unsupervised Multilingual Sentence Boundary Detection") as NLTK
applies it. One ends after `.`, `?` or `!` where space or a sign follows, also before a closing quote (`"Hi!" he said.`
is two) and after the number of a list (`1. One` is two); the end of a line ends none. An abbreviation, an initial, an
ellipsis and a number are looked at together with the word that follows. Punkt knows from a newspaper how each of 20,000
words is spelt there; this module has short lists and endings instead (`docs/ifeval.md` says how near that comes).

Everything here takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

# --- sentences ---

_QUOTES = "‘’“”«»"
_SIGN = rf"[)\";}}\]*:@'({{\[?!{_QUOTES}]"  # no word contains one of these
_DASHES_OR_DOTS = r"-{2,}|\.{2,}"
_CHUNK = re.compile(r"\S+")
_END = re.compile(rf"[.?!](?={_SIGN}|\Z)")
_TOKEN = re.compile(
    rf"{_DASHES_OR_DOTS}|[^(\"`{{\[:;&#*@)}}\]\-,]\S*?(?=\Z|{_SIGN}|{_DASHES_OR_DOTS}|,(?:\Z|{_SIGN}|{_DASHES_OR_DOTS}))|\S"
)
_CLOSING = re.compile(rf"[\"')\]}}{_QUOTES}]+(?:\s+|(?=--)|\Z)")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")

# What Punkt's English model takes for an abbreviation where a full stop follows; names stand after the first ones.
_TITLES_AND_INITIALS_TEXT = (
    "adm dr gen jr lt maj messrs mr mrs ms prof rep reps sen sr st b.f b.v d.h d.w e.f e.h e.l e.m f.g f.j g.d g.f g.k "
    "h.c h.f h.m j.b j.c j.j j.k j.p j.r l.f l.p m.j n.d n.m n.v p.a.m r.a r.h r.i r.j r.k r.t s.a s.a.y s.c s.g s.s "
    "t.j v va vs w.c w.r w.w a.a a.c a.g a.h a.s a.t c d e f g h k l m n p r s t w"
)
_OTHER_ABBREVIATIONS_TEXT = (
    "ala ariz aug ave bros calif chg cie co col colo conn corp cos ct dec feb fla fri ft ga ill inc jan kan ky ltd mg "
    "mich minn nev nov oct ok okla ore pa ph.d sep sept sw tenn tues vt wash wed wis yr w.va u.k u.n u.s u.s.a u.s.s.r "
    "a.m p.m a.d a.m.e c.i.t c.v d.c i.m.s l.a m.b.a m.d.c n.c n.h n.j n.y s.p.a"
)
# With a capital, these open a sentence, even after an abbreviation.
_OPENERS_TEXT = (
    "according although among both but despite even he however i if in indeed instead it many meanwhile moreover most "
    "nevertheless nonetheless nor sales separately similarly since so some the there these they this though thus under "
    "when while yet "
    "above along already anyone ask behind believe besides better between beyond call consider details does doesn "
    "earlier either ever every everyone evidence excess experts explore figures finally follow forget give given "
    "hello help hence her here ignore imagine inside isn join know later lives look make massive maybe neither "
    "none nothing note nowhere numbers others ours please prove put recent remember results right seldom several "
    "somehow someone something sometimes son soon start still such take terms thank thanks things think through "
    "together tomorrow true try unknown unless unlike us users various was wasn were whenever whereas whether which "
    "whose within without yes your"
)
_OPENING_END = re.compile(r".{2,}(?:ed|ing|ly|[st]ions?|able|ive|ous|ness|ated?|ities)")
# Everyday words that Punkt saw with a small letter too, so that no initial stands before them ("plan B. We went").
_EVERYDAY_TEXT = (
    "a about after again all also always an and another any are as at be because been before being by can could day "
    "did do each few first for from get go good great had has have his how into is its just last let life like may "
    "might more much must my never new next no not now of off old on once one only or other our out over own part "
    "people perhaps same second see she should than that their them then third those three time to today too two until "
    "up use very want way we well what where who why will with work world would you"
)
_AFTER_A_NUMBER_TEXT = (  # with it, one name
    "abreast business commodities corrections credit dividend financing insider international leisure letters notable "
    "pepper review who"
)
_TITLES_AND_INITIALS = frozenset(_TITLES_AND_INITIALS_TEXT.split())
_ABBREVIATIONS = _TITLES_AND_INITIALS | frozenset(_OTHER_ABBREVIATIONS_TEXT.split())
_OPENERS = frozenset(_OPENERS_TEXT.split())
_EVERYDAY = frozenset(_EVERYDAY_TEXT.split())
_AFTER_A_NUMBER = frozenset(_AFTER_A_NUMBER_TEXT.split())


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, with closing quotes and brackets, in order."""
    sentences: list[str] = []
    for sentence in _pieces(text):
        closing = _CLOSING.match(sentence) if sentences else None
        if closing:
            sentences[-1] += closing.group().rstrip()
            sentence = sentence[closing.end() :]
        if sentence:
            sentences.append(sentence)
    return sentences


def _pieces(text: str) -> Iterator[str]:
    """Yield the sentences of a text, where closing signs still open the next one."""
    start = 0
    for chunk, following in pairwise([*_CHUNK.finditer(text), None]):
        assert chunk  # only the last one is None
        ends = [match.end() for match in _END.finditer(chunk.group())]
        if ends and ends[-1] == len(chunk.group()) and not following:
            ends.pop()
        if not ends:
            continue
        if ends[-1] == len(chunk.group()) and following:
            tokens = _TOKEN.findall(chunk.group()) + _TOKEN.findall(following.group())
            next_start = following.start()
        else:
            tokens = _TOKEN.findall(chunk.group()[: ends[-1] + 1])
            next_start = chunk.start() + ends[-1]
        if any(_ends_sentence(token, after) for token, after in pairwise(tokens)):
            yield text[start : chunk.start() + ends[-1]]
            start = next_start
    yield text[start:].rstrip()


def _ends_sentence(token: str, following: str) -> bool:
    """Say whether a sentence ends with a token, before the token that follows."""
    if token in ("?", "!", "."):
        return True
    if not token.endswith("."):
        return False
    stem, word = token[:-1].lower(), following.lower().removesuffix(".")
    is_abbreviation = stem in _ABBREVIATIONS or stem.rpartition("-")[2] in _ABBREVIATIONS
    if len(stem) == 1 and stem.isalpha():
        is_name = following[0].isupper() and word not in _EVERYDAY and not _opens(word)
        return not (is_abbreviation or is_name or _goes_on(following))
    if is_abbreviation or token.startswith(".."):
        return following[0].isupper() and (word in _OPENERS if stem in _TITLES_AND_INITIALS else _opens(word))
    if _NUMBER.fullmatch(token):
        return not (_goes_on(following) or word in _AFTER_A_NUMBER)
    return True


def _opens(word: str) -> bool:
    """Say whether a word that stands with a capital does so for no other reason than that it opens a sentence."""
    return word in _OPENERS or bool(_OPENING_END.fullmatch(word))


def _goes_on(token: str) -> bool:
    return token[0].islower() or token in (";", ":", ",", ".", "!", "?")


# --- words ---

_BETWEEN_WORDS = re.compile(
    r"""[\s"«»“”‘’„`\[\](){}<>;@#$%&?!*\u2012-\u2015] | \.{2,} | -- | '' | [:,](?!\d)
      | (?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)     # an opening quote
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CLITIC = re.compile(r"(.*[^'])('S|'M|'D|')", re.IGNORECASE | re.DOTALL)
_LONG_CLITIC = re.compile(r"(.*[^'])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T)", re.DOTALL)
_JOINED = re.compile(r"\b(?:(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n))\b", re.IGNORECASE)


def count_capital_words(text: str) -> int:
    """Return how many words have letters, all of them capitals, as NLTK's tokenizer splits words.

    It takes contractions apart: DON'T is two, and so are IT'S and CANNOT; HIGH-END is one.
    """
    sentences = map(_without_final_stop, split_sentences(text))
    words = (word for sentence in sentences for word in _BETWEEN_WORDS.split(sentence))
    return sum(part.isupper() for word in words if word != word.lower() for part in _parts(word))


def _without_final_stop(sentence: str) -> str:
    inside = sentence.rstrip().rstrip("])}>\"'»”’ ")
    is_stop = inside.endswith(".") and not inside.endswith("..")
    return inside[:-1] + sentence[len(inside) :] if is_stop else sentence


def _parts(word: str) -> list[str]:
    parts: list[str] = []
    for clitic in (_CLITIC, _LONG_CLITIC):
        if match := clitic.fullmatch(word):
            word, end = match.groups()
            parts.append(end)
    joined = _JOINED.sub(lambda match: " ".join(("", *filter(None, match.groups()), "")), word)
    if word.lower().endswith("wanna"):
        joined = f"{joined[:-2]} {joined[-2:]}"
    return [*joined.split(), *parts]
