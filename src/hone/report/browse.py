"""Which outputs of evaluations a page holds with their text: a seeded selection that fits into a budget, and says so.

Every verdict is embedded, a letter an output. Outputs are read from disk for the chosen problems alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hone.report.answers import shortened
from hone.report.charts import Row
from hone.report.evaluations import Evaluation, Place, read_outputs, read_problems
from hone.report.page import embedded

SEED = 0
MAX_PROBLEMS = 40  # a benchmark
MAX_OUTPUTS = 4  # a problem and model
MAX_TEXT_BYTES = 8_000_000  # of all completions, as they stand in the file
LENGTHS = (20_000, 8_000, 3_000, 1_200, 400)  # characters of one completion: the first at which all fit
MAX_QUESTION_CHARS = 8_000
MAX_NOTE_CHARS = 600  # of a verdict's reason, of an extracted answer, of a reference

Places = Mapping[str, Sequence[Place]]


def browse(benchmarks: Sequence[tuple[str, Sequence[tuple[Evaluation, Row, Places]]]]) -> list[Row]:
    """Return for each benchmark its problems, and for each model all verdicts and the texts of the chosen outputs."""
    num_evaluations = sum(len(entries) for _, entries in benchmarks)
    num_problems = max(4, min(MAX_PROBLEMS, MAX_TEXT_BYTES // (num_evaluations * MAX_OUTPUTS * 1000)))
    bytes_left, browsers = MAX_TEXT_BYTES, []
    for name, entries in benchmarks:
        ids = list(dict.fromkeys(problem for *_, places in entries for problem in places))
        chosen = choose(ids, [places for *_, places in entries], num_problems)
        models = []
        for evaluation, look, places in entries:
            outputs, num_bytes = _texts(evaluation, places, chosen, bytes_left // num_evaluations)
            bytes_left, num_evaluations = bytes_left - num_bytes, num_evaluations - 1
            verdicts = ["".join(place.code for place in places.get(problem, ())) for problem in ids]
            numbered = {ids.index(problem): rows for problem, rows in outputs.items()}
            models.append(look | {"verdicts": verdicts, "outputs": numbered})
        questions = {ids.index(problem): row for problem, row in _questions(entries, chosen)}
        browsers.append({"benchmark": name, "problems": ids, "questions": questions, "models": models})
    return browsers


def choose(ids: Sequence[str], by_model: Sequence[Places], count: int) -> list[str]:
    """Choose problems by lot, in turns from all, from those on which models disagree, and from the odd ones.

    Odd are problems with outputs that are unscorable or were cut, and those that nobody solved.
    """
    drawn = random.Random(SEED).sample(ids, len(ids))
    codes = {one: ["".join(p.code for p in places.get(one, ())) for places in by_model] for one in ids}
    queues = [
        drawn,
        [one for one in drawn if disagree(codes[one])],
        [one for one in drawn if any("u" in found.lower() for found in codes[one])],
        [one for one in drawn if any(found != found.lower() for found in codes[one])],
        [one for one in drawn if not any("r" in found.lower() for found in codes[one])],
    ]
    chosen: set[str] = set()
    while len(chosen) < min(count, len(ids)):
        for queue in queues:
            fresh = next((one for one in queue if one not in chosen), None)
            if fresh is not None and len(chosen) < count:
                chosen.add(fresh)
    return [one for one in ids if one in chosen]


def disagree(codes: Sequence[str]) -> bool:
    """Tell whether one model is mostly right and another mostly not; of one model, whether its outputs differ."""
    asked = [found.lower() for found in codes if found]
    if len(asked) == 1:
        return 0 < asked[0].count("r") < len(asked[0])
    return len({2 * found.count("r") > len(found) for found in asked}) > 1


def num_shown(browsers: Sequence[Row]) -> Row:
    """Return the figures with which a page says what it holds and what it leaves out."""
    outputs = [
        output for browser in browsers for model in browser["models"]
        for rows in model["outputs"].values() for output in rows
    ]  # fmt: skip
    return {
        "outputs": len(outputs),
        "cut": sum(output["cut"] for output in outputs),
        "problems": MAX_PROBLEMS,
        "per_problem": MAX_OUTPUTS,
        "chars": LENGTHS[0],
        "seed": SEED,
    }


def _texts(
    evaluation: Evaluation, places: Places, chosen: Sequence[str], num_bytes: int
) -> tuple[dict[str, list[Row]], int]:
    """Return the chosen outputs by problem, as long as they may be within `num_bytes`, and how many bytes they take."""
    rows = {place.row for problem in chosen for place in _few(places.get(problem, ()))}
    found = [output | {"completion": output["completion"] or ""} for output in read_outputs(evaluation, rows)]
    for length in LENGTHS:
        outputs: dict[str, list[Row]] = {}
        for output in found:
            outputs.setdefault(str(output["id"]), []).append(_output(output, length))
        size = len(embedded(outputs).encode("utf-8", "replace"))
        if size <= num_bytes:
            break
    return outputs, size


def _few(places: Sequence[Place]) -> list[Place]:
    """Return a few outputs to a problem: the first of each verdict, then the first of all."""
    firsts = {place.code: place for place in reversed(places)}
    order = sorted(places, key=lambda place: (firsts[place.code] is not place, place.row))
    return order[:MAX_OUTPUTS]


def _output(row: Row, max_chars: int) -> Row:
    return {
        "index": row["index"],
        "verdict": row["verdict"],
        "why": _note(row.get("why")),
        "extracted": _note(row.get("extracted")),
        "tokens": row["num_tokens"],
        "truncated": bool(row.get("truncated", row["finish_reason"] == "length")),
        "cut": len(row["completion"]) > max_chars,
        "length": len(row["completion"]),
        "text": thoughts(row["prompt"] or "", row["completion"], max_chars),
    }


def thoughts(prompt: str, completion: str, max_chars: int) -> list[Row]:
    """Cut a completion into its thinking and the rest, each shortened in the middle so that both fit.

    Thinking ends at `</think>`; it may have been opened by the prompt, and in a cut output it may have no end.
    """
    end = completion.find("</think>")
    opened = completion.lstrip().startswith("<think>") or prompt.rstrip().endswith("<think>")
    split = end + len("</think>") if end >= 0 else len(completion) if opened else 0
    think, rest = completion[:split], completion[split:]
    room = max(max_chars - len(think), max_chars // 2)
    parts = [("think", think, max_chars - min(len(rest), room)), ("answer" if think else "outside", rest, room)]
    return [{"part": part, "runs": [shortened(text, size)]} for part, text, size in parts if text.strip()]


def _questions(entries: Sequence[tuple[Evaluation, Row, Places]], chosen: Sequence[str]) -> Iterator[tuple[str, Row]]:
    missing = set(chosen)
    for evaluation, *_ in entries:
        for problem, row in read_problems(evaluation, missing).items():
            missing.discard(problem)
            tags = row.get("tags") if isinstance(row.get("tags"), dict) else {}
            yield (
                problem,
                {
                    "question": shortened(str(row["question"]), MAX_QUESTION_CHARS),
                    "reference": _note(row.get("answer")),
                    "tags": [_note(f"{key}: {value}") for key, value in (tags or {}).items()],
                },
            )
        if not missing:
            return


def _note(text: Any) -> str:
    return "" if text is None else shortened(str(text), MAX_NOTE_CHARS)
