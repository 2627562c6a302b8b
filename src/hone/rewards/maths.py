"""Whether a mathematical answer is right. The policies are on the page docs/grader.md.

What `notation` reads exactly is decided here at once. Only where LaTeX must be understood do worker processes that can
be killed ask math-verify (`symbolic`). Three outcomes: an answer outside the limits or unreadable is wrong; one whose
comparison runs out of time or memory or crashes is unscorable, and so is one whose reference is at fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from hone.rewards.answers import Formula, Number, Value, Word, key, same, squeezed
from hone.rewards.extract import extract
from hone.rewards.notation import OutsideLimits, read
from hone.rewards.workers import Outcome, Workers, shared_workers
from hone.types import HoneError, Verdict, Verified

EMPTY = Formula("")
RIGHT, WRONG = Verified(Verdict.RIGHT, "equal", 1.0), Verified(Verdict.WRONG, "not equal")


class _NeedsLatex(Exception):
    """Two values can only be compared by who understands LaTeX."""


def equivalent(gold: str, pred: str) -> Verified:
    """Judge one extracted answer by its reference."""
    return equivalent_all([(gold, pred)])[0]


def equivalent_all(pairs: Sequence[tuple[str, str]]) -> list[Verified]:
    """Judge extracted answers: (reference, answer) each. The reference may stand in a box or between dollars.

    The same pair is judged once: of many outputs to a problem, most give one of a few answers.
    """
    pairs = [(_reference(gold), pred) for gold, pred in pairs]
    verdicts = {pair: _decide(*pair) for pair in dict.fromkeys(pairs)}
    left = [pair for pair, verdict in verdicts.items() if verdict is None]
    if left:
        outcomes = _workers().map("hone.rewards.symbolic:same_answer", left)
        verdicts |= {pair: _verdict(outcome) for pair, outcome in zip(left, outcomes, strict=True)}
    return [verdict for pair in pairs if (verdict := verdicts[pair]) is not None]


def check_reference(gold: str) -> None:
    """Raise `HoneError` where a reference answer is empty, outside the limits, or LaTeX that cannot be parsed."""
    reference = _reference(gold)
    verdict = _decide(reference, reference)
    fault = verdict.why if verdict and verdict.verdict is Verdict.UNSCORABLE else _parse_fault(reference)
    if fault:
        raise HoneError(f"reference answer {gold[:80]!r}: {fault}")


@lru_cache(maxsize=1 << 16)
def _parse_fault(gold: str) -> str:
    if isinstance(read(gold), Number | Word):
        return ""
    outcome = _workers().map("hone.rewards.symbolic:check", [[gold]])[0]
    return _verdict(outcome).why if outcome.kind == "raised" else ""


def canonical(answer: str) -> str:
    """Return a key that equal answers share, for majority votes: of the value where it is exact, else of the text.

    50% has the key of 50, and a unit does not count.
    """
    try:
        return key(read(answer))
    except OutsideLimits:
        return answer.strip()


def _workers() -> Workers:
    return shared_workers(preload=("hone.rewards.symbolic",))


def _reference(gold: str) -> str:
    """Return the answer within a reference that is a whole solution."""
    if "\\boxed" in gold or "\\fbox" in gold:
        return extract(gold, "boxed") or ""
    return (extract(gold, "auto") or "") if "answer" in gold else gold


def _decide(gold: str, pred: str) -> Verified | None:
    """Return the verdict where it needs no understanding of LaTeX."""
    try:
        expected = read(gold)
    except OutsideLimits as error:
        return Verified(Verdict.UNSCORABLE, f"gold is outside the limits: {error}")
    try:
        found = read(pred)
    except OutsideLimits as error:
        return Verified(Verdict.WRONG, f"outside the limits: {error}")
    if expected == EMPTY:
        return Verified(Verdict.UNSCORABLE, "gold is empty")
    return Verified(Verdict.WRONG, "no answer") if found == EMPTY else _compare(expected, found)


def _compare(gold: Value, pred: Value) -> Verified | None:
    if gold == pred:
        return RIGHT
    try:
        return RIGHT if same(gold, pred, _only_same_text) else WRONG
    except _NeedsLatex:
        return None


def _only_same_text(gold: str, pred: str) -> bool:
    if squeezed(gold) == squeezed(pred):
        return True
    raise _NeedsLatex


def _verdict(outcome: Outcome) -> Verified:
    if outcome.kind == "value":
        return RIGHT if outcome.value else WRONG
    if outcome.kind == "raised" and outcome.why.startswith("UnreadableReference"):
        return Verified(Verdict.UNSCORABLE, "gold cannot be parsed")
    if outcome.kind == "missing":
        raise HoneError(f"math-verify cannot be loaded ({outcome.why}): pip install -c constraints.txt hone-r1")
    return Verified(Verdict.UNSCORABLE, outcome.why or "ran out of memory")
