"""An evaluation from beginning to end: ask a model, store what it says, judge it in processes of their own, score it.

Sampling and judging are two passes, so that judging never holds up sampling, and can be done again: `regrade`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from hone import __version__
from hone.evals.generations import (
    FORMAT,
    Journal,
    as_row,
    begin,
    begin_copy,
    finish,
    has_outputs,
    read_outputs,
    read_problems,
    read_settings,
    write_outputs,
)
from hone.evals.grading import Grader
from hone.evals.outputs import Decoding, Output, Source, Wanted
from hone.evals.scores import Answered, Scores
from hone.record.files import alone_in, write_atomically, write_json
from hone.record.progress import StageProgress
from hone.rewards.code import open_sandbox
from hone.rewards.extract import EXTRACTIONS
from hone.rewards.verifiers import VERIFIERS
from hone.tasks.rows import read_rows
from hone.types import HoneError, Message, Problem

VERDICTS, SCORES = "verdicts.jsonl", "scores.json"
GIVEN = "outputs made elsewhere"


def evaluate(
    source: Source, problems: Sequence[Problem], *, benchmark: str, data: str, prompt: str, decoding: Decoding,
    samples: int, seed: int, folder: Path, console: Console,
) -> dict[str, Any]:  # fmt: skip
    """Draw `samples` outputs a problem, store and score them in `folder`; return the scores.

    Where the folder holds a part of this same evaluation, the rest is drawn.
    """
    settings = _settings(source.model, source.model_hash, benchmark, data, problems) | {
        "prompt": prompt, "decoding": asdict(decoding), "samples": samples, "seed": seed,
        "protocol": describe(decoding, samples),
    }  # fmt: skip
    _check(problems)
    with alone_in(folder):
        begin(folder, settings, problems)
        if not has_outputs(folder):
            with Journal(folder) as journal:
                _draw(source, _wanted(problems, samples, seed, journal), decoding, journal, console, benchmark)
            finish(folder, problems, settings)
        return _grade(folder, problems, console)


def score_file(
    file: Path, *, folder: Path, verifier: str, extraction: str, console: Console
) -> dict[str, Any]:  # fmt: skip
    """Score outputs made elsewhere, rows `{id, problem, answer, responses: [...]}`, in `folder`; return the scores.

    `subject` and `level` of a row are what the figures are broken down by. Any other row is refused by its line.
    """
    rows = [_given(row, file, line, verifier, extraction) for line, row in read_rows(file)]
    problems = [problem for problem, _ in rows]
    twice = {problem.id: problem for problem in problems}
    if len(twice) < len(problems):
        name = next(problem.id for problem in problems if twice[problem.id] is not problem)
        raise HoneError(f"{file}: the id {name!r} stands in two rows")
    _check(problems)
    settings = _settings(file.stem, "", file.stem, str(file), problems) | {
        "prompt": "", "decoding": None, "samples": max(len(responses) for _, responses in rows), "seed": None,
        "protocol": GIVEN,
    }  # fmt: skip
    with alone_in(folder):
        begin(folder, settings, problems)
        outputs = (
            Output(
                problem_id=problem.id, index=index, prompt=problem.question, completion=text, finish_reason=None,
                num_tokens=None, seed=None,
            )
            for problem, responses in rows
            for index, text in enumerate(responses)
        )  # fmt: skip
        write_outputs(folder, outputs, settings)
        return _grade(folder, problems, console)


def regrade(
    folder: Path, *, verifier: str | None, extraction: str | None, out: Path, console: Console
) -> dict[str, Any]:  # fmt: skip
    """Judge the stored outputs of an evaluation again, by another verifier or extraction if given; return the scores.

    `out` becomes an evaluation of the same outputs, or is the folder itself, whose verdicts and scores are replaced.
    """
    problems = [
        replace(problem, verifier=verifier or problem.verifier, extract=extraction or problem.extract)
        for problem in read_problems(folder)
    ]
    _check(problems)
    with alone_in(out):
        if out.resolve() != folder.resolve():
            begin_copy(folder, out, problems)
        return _grade(out, problems, console)


def describe(decoding: Decoding, samples: int) -> str:
    """Say in a line how outputs are drawn."""
    return (
        f"temperature {decoding.temperature:g}, top-p {decoding.top_p:g}, at most {decoding.max_tokens} tokens, "
        f"k = {samples}, zero-shot, template {decoding.template}"
    )


def folder_name(benchmark: str, model: str, **choices: Any) -> str:
    """Return a name for the folder of an evaluation: other choices, another folder."""
    digest = hashlib.blake2b(json.dumps([model, choices], sort_keys=True).encode(), digest_size=4).hexdigest()
    return f"eval-{benchmark}-{digest}"


def _settings(model: str, model_hash: str, benchmark: str, data: str, problems: Sequence[Problem]) -> dict[str, Any]:
    rows = json.dumps([as_row(problem) for problem in problems], sort_keys=True)
    return {
        "format": FORMAT,
        "model": model,
        "model_hash": model_hash,
        "benchmark": benchmark,
        "data": data,
        "num_problems": len(problems),
        "problems_hash": hashlib.blake2b(rows.encode(), digest_size=8).hexdigest(),
        "hone": __version__,
    }


def _check(problems: Sequence[Problem]) -> None:
    """Refuse, before anything is drawn, what could not be judged afterwards."""
    for problem in problems:
        if problem.verifier not in VERIFIERS or problem.verifier == "judge":
            known = ", ".join(name for name in VERIFIERS if name != "judge")
            raise HoneError(f"no verifier {problem.verifier!r} for an evaluation; there are {known}")
        if problem.extract not in EXTRACTIONS:
            raise HoneError(f"no way of extraction is called {problem.extract!r}; there are {', '.join(EXTRACTIONS)}")
        if problem.verifier in ("instructions", "code"):
            VERIFIERS[problem.verifier].check_reference(problem)
    if any(problem.verifier == "code" for problem in problems):
        open_sandbox()


def _wanted(problems: Sequence[Problem], samples: int, seed: int, journal: Journal) -> list[Wanted]:
    """Return the outputs that the journal lacks, those of one problem together."""
    return [
        Wanted(problem_id=problem.id, index=index, messages=problem.messages, seed=_seed(seed, problem.id, index))
        for problem in problems
        for index in range(samples)
        if (problem.id, index) not in journal.done
    ]


def _seed(seed: int, problem_id: str, index: int) -> int:
    """Return a seed of an output's own, below 2^31, as endpoints take it."""
    text = f"{seed}/{index}/{problem_id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") >> 1


def _draw(
    source: Source, wanted: Sequence[Wanted], decoding: Decoding, journal: Journal, console: Console, name: str
) -> None:
    if not wanted:
        return
    done = len(journal.done)
    if done:
        console.print(f"{name}  going on: {done} outputs are there, {len(wanted)} are not", highlight=False)
    cut = 0
    with (
        StageProgress(console, name, done + len(wanted)) as progress,
        closing(source.generate(wanted, decoding)) as outputs,  # an interrupt hangs up on requests in flight at once
    ):
        for count, output in enumerate(outputs, 1):
            journal.add(output)
            cut += output.finish_reason == "length"
            progress.update(done + count, cut=cut / count)


def _grade(folder: Path, problems: Sequence[Problem], console: Console) -> dict[str, Any]:
    """Judge the outputs of a folder and write verdicts and scores beside them."""
    settings = read_settings(folder)
    known = {problem.id: problem for problem in problems}

    def answered() -> Iterator[tuple[Problem, list[Answered]]]:
        for problem_id, outputs in read_outputs(folder):
            if problem_id not in known:
                raise HoneError(f"{folder}: there is an output to {problem_id!r}, which is not among its problems")
            yield known[problem_id], [_answered(output) for output in outputs]

    scores = Scores()

    def write(temporary: Path) -> None:
        with (
            temporary.open("w", encoding="utf-8") as file,
            Grader() as grader,
            StageProgress(console, "grading", len(problems)) as progress,
        ):
            for count, (problem, rows, consensus) in enumerate(grader.grade(answered()), 1):
                scores.add(problem, rows, consensus=consensus)
                for index, row in enumerate(rows):
                    file.write(json.dumps({"id": problem.id, "index": index, **row}, ensure_ascii=True) + "\n")
                progress.update(count)

    write_atomically(folder / VERDICTS, write)
    found = {
        "format": FORMAT,
        "model": settings["model"],
        "model_hash": settings["model_hash"],
        "benchmark": settings["benchmark"],
        "verifier": _version(problems),
        **scores.figures(),
        "groups": scores.groups(),
        "settings": settings,
        "problems": scores.problems(),
    }
    write_json(folder / SCORES, found)
    return found


def _answered(output: Output) -> Answered:
    truncated = None if output.finish_reason is None else output.finish_reason == "length"
    return Answered(text=output.completion, num_tokens=output.num_tokens, truncated=truncated)


def _version(problems: Sequence[Problem]) -> str:
    """Name what judged: our version, each verifier and where it looks for the answer, and the library behind it."""
    kinds = dict.fromkeys((problem.verifier, problem.extract) for problem in problems)
    named = "; ".join(f"{verifier}, {extraction}" for verifier, extraction in kinds)
    library = f" (math-verify {metadata.version('math-verify')})" if any(kind == "math" for kind, _ in kinds) else ""
    return f"hone {__version__}: {named}{library}"


def _given(
    row: dict[str, Any], file: Path, line: int, verifier: str, extraction: str
) -> tuple[Problem, list[str]]:  # fmt: skip
    """Return the problem of a row and the outputs to it."""
    question, answer, responses = (row.get(key) for key in ("problem", "answer", "responses"))
    name = row.get("id", line)
    match name, question, answer, responses:
        case str() | int(), str(), str() | int() | float(), [_, *_] if all(isinstance(r, str) for r in responses):
            pass
        case _:
            has = ", ".join(f"{key!r}: {type(value).__name__}" for key, value in list(row.items())[:8])
            raise HoneError(
                f"{file}, line {line}: a row is {{id, problem, answer, responses: [text, ...]}}, not {{{has}}}"
            )
    tags = {key: str(row[key]).removeprefix("Level ") for key in ("subject", "level") if row.get(key) is not None}
    problem = Problem(
        id=str(name),
        task=file.stem,
        messages=(Message(role="user", content=question),),
        answer=str(answer),
        verifier=verifier,
        extract=extraction,
        language="zh" if any("\u4e00" <= character <= "\u9fff" for character in question) else "en",
        tags=tags,
    )
    return problem, responses
