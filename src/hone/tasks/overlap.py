"""Which training texts hold evaluation texts: the same text, or a large part of its 13-grams.

Texts are compared by their words. Capitals, punctuation and LaTeX's spacing do not count; a Chinese character is a
word, and so is a sign of arithmetic, which tells `2 + 3` from `2 - 3`. The evaluation texts are held in memory, the
training texts pass by. The module does not know what the texts are or what is to be done about an overlap.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

NGRAM = 13
# Problems made from one template share many n-grams, so that sharing one says little. Half of an evaluation text is
# the same problem, or one that differs in a number or in what is asked for.
MIN_SHARE = 0.5
# An n-gram in more evaluation texts than this belongs to a template (an instruction before each question, say) and
# says nothing about any of them.
MAX_TEXTS = 10

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003134f"
_SIGNS = "-+*/=<>^|%×÷−±≤≥≠"
_WORD = re.compile(
    rf"[^\W_{_HAN}]+|[{_HAN}]|[{re.escape(_SIGNS[1:])}]"
    r"|(?<![a-z]{2})-|-(?![a-z]{2})"  # a minus sign, not the hyphen of well-known
)
_LAYOUT = re.compile(r"\\(?:q?quad|left|right|displaystyle|limits)(?![a-z])|\\[dt](?=frac)")
_NO_SIGNS = str.maketrans("", "", _SIGNS)

Text = tuple[str, str]  # an id and the text itself
Kind = Literal["exact", "letters", "n-gram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A training text that is an evaluation text or holds a part of it.

    `kind` is `exact` where the words are the same, `letters` where only the letters and digits are (`xy + 1` and
    `x y - 1`), else `n-gram`. `share` is the part of the evaluation text's n-grams that the training text holds, those
    of templates left out. `words` is the longest run of words that both have.
    """

    train_id: str
    eval_id: str
    kind: Kind
    share: float
    words: str


class _Plain(dict[int, str]):
    """Maps a character to its plain form without marks, as found: ３ to 3, é to e.

    Character by character, because Unicode normalisation of a text takes quadratic time on a long run of marks.
    """

    def __missing__(self, code: int) -> str:
        one = chr(code)
        # Of letters alone, because = is what ≠ is without its mark.
        forms = unicodedata.normalize("NFKD", one) if one.isalpha() else unicodedata.normalize("NFKC", one)
        return self.setdefault(code, "".join(form for form in forms if not unicodedata.combining(form)))


_PLAIN = _Plain()


def words_of(text: str) -> list[str]:
    """Return the words by which texts are compared."""
    text = text.lower() if text.isascii() else text.translate(_PLAIN).lower()
    return _WORD.findall(_LAYOUT.sub(" ", text) if "\\" in text else text)


def normalise(text: str) -> str:
    r"""Return a text as its words: `Is $\dfrac{1}{2}$ well-known?` is `is frac 1 2 well known`."""
    return " ".join(words_of(text))


def duplicates(texts: Iterable[Text]) -> list[tuple[str, ...]]:
    """Return the ids of the texts that are the same when normalised: a group for each text that comes again."""
    groups: dict[str, list[str]] = {}
    for name, text in texts:
        groups.setdefault(normalise(text), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def find_overlap(
    train: Iterable[Text], evaluation: Iterable[Text], *, n: int = NGRAM, min_share: float = MIN_SHARE
) -> list[Overlap]:
    """Return the training texts that hold evaluation texts, in the order of `train`.

    A pair comes once, as the first kind that it is. Texts of fewer than `n` words have no n-grams: they are found only
    where they are the whole training text. N-grams are compared by 64-bit hashes.
    """
    index = Index(evaluation, n)
    return [overlap for name, text in train for overlap in index.overlaps(name, words_of(text), min_share)]


class Index:
    """The evaluation texts, to be found by their letters and by their n-grams."""

    def __init__(self, evaluation: Iterable[Text], n: int = NGRAM) -> None:
        self.n = n
        self.texts = [(name, words_of(text)) for name, text in evaluation]
        self.by_letters: defaultdict[str, list[int]] = defaultdict(list)
        places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # of an n-gram: the text, the word there
        for number, (_, words) in enumerate(self.texts):
            self.by_letters[_letters(words)].append(number)
            for position, ngram in enumerate(_ngrams(words, n)):
                places[ngram].append((number, position))
        self.places = {ngram: found for ngram, found in places.items() if len({text for text, _ in found}) <= MAX_TEXTS}
        self.num_ngrams = Counter(text for found in self.places.values() for text, _ in found)

    def overlaps(self, name: str, words: list[str], min_share: float) -> Iterator[Overlap]:
        """Yield what one training text holds."""
        same = self.by_letters.get(_letters(words), [])
        for number in same:
            eval_id, known = self.texts[number]
            kind: Kind = "exact" if known == words else "letters"
            yield Overlap(train_id=name, eval_id=eval_id, kind=kind, share=1.0, words=" ".join(known))
        for number, positions in self._shared(words).items():
            share = len(positions) / self.num_ngrams[number]
            if share >= min_share and number not in same:
                eval_id, known = self.texts[number]
                start, end = _longest_run(sorted(positions))
                run = " ".join(known[start : end + self.n])
                yield Overlap(train_id=name, eval_id=eval_id, kind="n-gram", share=share, words=run)

    def _shared(self, words: list[str]) -> dict[int, list[int]]:
        """Return where in which evaluation texts the n-grams of a training text begin."""
        shared: defaultdict[int, list[int]] = defaultdict(list)
        for ngram in self.places.keys() & set(_ngrams(words, self.n)):
            for number, position in self.places[ngram]:
                shared[number].append(position)
        return dict(sorted(shared.items()))


def _ngrams(words: Sequence[str], n: int) -> Iterator[int]:
    """Yield the hash of each n-gram, in order."""
    return map(hash, zip(*(words[start:] for start in range(n)), strict=False))


def _letters(words: Sequence[str]) -> str:
    """Return a text without spaces and signs; one that has nothing else stays itself."""
    text = "".join(words)
    return text.translate(_NO_SIGNS) or text


def _longest_run(positions: Sequence[int]) -> tuple[int, int]:
    """Return the first and the last of the longest run of neighbours in ascending numbers."""
    best = run = (positions[0], positions[0])
    for position in positions[1:]:
        run = (run[0], position) if position == run[1] + 1 else (position, position)
        best = max(best, run, key=lambda run: run[1] - run[0])
    return best
