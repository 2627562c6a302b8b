"""Benchmarks by name: where their problems are, how they are asked and checked, how many outputs each takes.

The paper asks each question from 4 to 64 times, the more the fewer there are; prompts are those that DeepSeek and the
makers of the sets publish, zero-shot and without a system prompt. The module asks no model and judges no answer.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hone.tasks import livecodebench, problems
from hone.tasks.datasets import load_problems
from hone.tasks.formats import mapping_for
from hone.tasks.rows import HUB
from hone.tasks.split import Split
from hone.types import HoneError, Problem

# DeepSeek-R1's advice for mathematics, and DeepSeekMath's for Chinese.
MATHS = "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."
MATHS_ZH = "{question}\n请通过逐步推理来解答问题，并把最终答案放置于\\boxed{{}}中。"
# simple-evals' form of multiple choice, and the same in Chinese.
CHOICE = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\n"
    "{question}\n\n{options}"
)
CHOICE_ZH = (
    "请回答下面的单项选择题。回答的最后一行必须是“答案：$LETTER”的格式（不带引号），其中 LETTER 是 ABCD 之一。"
    "请先逐步思考，再作答。\n\n{question}\n\n{options}"
)
BUILT_IN_PROBLEMS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A named set of problems, with how it is asked, checked and sampled.

    `format` and `fields` are what `load_problems` makes its mapping of; the fields name those of the hub's rows and of
    the files that people have. A built-in task has a `task` instead of a `hub`. `hub_files` are those of a set that the
    `datasets` library cannot load.
    """

    name: str
    title: str
    samples: int
    hub: str = ""
    hub_split: str = "test"
    hub_config: str = ""
    hub_files: tuple[str, ...] = ()
    num_problems: int = 0  # on the hub, of that split
    licence: str = ""
    format: str = ""
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    prompt: str = ""  # {question} and the choices are filled in; empty: the format's own
    task: str = ""
    num_numbers: int = 3
    subject_in_id: bool = False  # ids are SET/SUBJECT/NUMBER

    @property
    def path(self) -> str:
        """What `load_problems` reads where no file is given."""
        return f"{HUB}{self.hub}" + (f"/{','.join(self.hub_files)}" if self.hub_files else "")

    @property
    def verifier(self) -> str:
        if self.task:
            return problems(self.task, split="test", count=1, seed=0)[0].verifier
        return mapping_for(self.format, **self.fields).verifier

    @property
    def is_dated(self) -> bool:
        """Whether its problems have dates, so that a window can be asked for."""
        return not self.task and bool(mapping_for(self.format, **self.fields).date)


def _built_in(name: str, title: str, task: str, num_numbers: int = 3) -> Benchmark:
    return Benchmark(name=name, title=title, samples=8, task=task, num_numbers=num_numbers, licence="MIT")


_CHOICE_IDS = {"id": "hub_config+id|id|question_id|", "subject": "subject|subject_name|hub_config"}
_ALL = (
    Benchmark(
        name="math500", title="MATH-500", samples=8, hub="HuggingFaceH4/MATH-500", num_problems=500, format="math",
        prompt=MATHS, licence="MIT",
    ),
    Benchmark(
        name="aime2024", title="AIME 2024", samples=64, hub="HuggingFaceH4/aime_2024", hub_split="train",
        num_problems=30, format="aime", prompt=MATHS, licence="problems (c) MAA",
    ),
    Benchmark(
        name="aime2025", title="AIME 2025", samples=64, hub="math-ai/aime25", num_problems=30, format="aime",
        prompt=MATHS, licence="problems (c) MAA",
    ),
    Benchmark(
        name="amc23", title="AMC 2023", samples=16, hub="math-ai/amc23", num_problems=40, format="aime", prompt=MATHS,
        licence="problems (c) MAA",
    ),
    Benchmark(
        name="gsm8k", title="GSM8K", samples=4, hub="openai/gsm8k", hub_config="main", num_problems=1319,
        format="gsm8k", prompt=MATHS, licence="MIT",
    ),
    Benchmark(
        name="olympiadbench", title="OlympiadBench, English open-ended maths", samples=4, hub="Hothan/OlympiadBench",
        hub_config="OE_TO_maths_en_COMP", hub_split="train", num_problems=674, format="math",
        fields={"answer": "final_answer|answer", "subject": "subfield|subject"}, prompt=MATHS, licence="MIT",
    ),
    Benchmark(
        name="mgsm-zh", title="MGSM, Chinese", samples=8, hub="juletxara/mgsm", hub_config="zh", num_problems=250,
        format="gsm8k", fields={"answer": "answer_number|answer"}, prompt=MATHS_ZH, licence="CC BY-SA 4.0",
    ),
    Benchmark(
        name="cmath", title="CMATH", samples=4, hub="weitianwen/cmath", num_problems=1098, format="gsm8k",
        fields={"answer": "golden|answer", "level": "grade"}, prompt=MATHS_ZH, licence="CC BY 4.0",
    ),
    Benchmark(
        name="svamp", title="SVAMP", samples=8, hub="ChilleD/SVAMP", num_problems=300, format="gsm8k",
        fields={"id": "id|ID|", "subject": "Type"}, prompt=MATHS, licence="MIT",
    ),
    Benchmark(
        name="gpqa-diamond", title="GPQA Diamond", samples=16, hub="Idavidrein/gpqa", hub_config="gpqa_diamond",
        hub_split="train", num_problems=198, format="gpqa", prompt=CHOICE, licence="CC BY 4.0; gated on the hub",
    ),
    Benchmark(
        name="mmlu", title="MMLU", samples=4, hub="cais/mmlu", hub_config="all", num_problems=14042, format="choices",
        fields=_CHOICE_IDS, prompt=CHOICE, licence="MIT",
    ),
    Benchmark(
        name="ceval", title="C-Eval, validation", samples=4, hub="ceval/ceval-exam", hub_config="*", hub_split="val",
        num_problems=1346, format="choices", fields=_CHOICE_IDS, prompt=CHOICE_ZH, licence="CC BY-NC-SA 4.0",
        subject_in_id=True,
    ),
    Benchmark(
        name="cmmlu", title="CMMLU", samples=4, hub="haonan-li/cmmlu", hub_config="*", num_problems=11582,
        format="choices", fields=_CHOICE_IDS, prompt=CHOICE_ZH, licence="CC BY-NC-SA 4.0", subject_in_id=True,
    ),
    Benchmark(
        name="humaneval", title="HumanEval", samples=16, hub="openai/openai_humaneval", num_problems=164,
        format="humaneval", licence="MIT",
    ),
    Benchmark(
        name="mbpp", title="MBPP", samples=8, hub="google-research-datasets/mbpp", hub_config="full", num_problems=500,
        format="mbpp", licence="CC BY 4.0",
    ),
    Benchmark(
        name="mbpp-sanitized", title="MBPP, sanitized", samples=8, hub="google-research-datasets/mbpp",
        hub_config="sanitized", num_problems=257, format="mbpp", licence="CC BY 4.0",
    ),
    Benchmark(
        name="livecodebench", title="LiveCodeBench", samples=16, hub="livecodebench/code_generation_lite",
        hub_files=("test.jsonl", *(f"test{number}.jsonl" for number in range(2, 7))), num_problems=1055,
        format="livecodebench", prompt=livecodebench.PROMPT, licence="CC; statements (c) their sites",
    ),
    Benchmark(
        name="code-contests", title="CodeContests", samples=16, hub="deepmind/code_contests", num_problems=165,
        format="codecontests", prompt=livecodebench.PROMPT, licence="CC BY 4.0",
    ),
    Benchmark(
        name="ifeval", title="IFEval", samples=8, hub="google/IFEval", hub_split="train", num_problems=541,
        format="ifeval", prompt="{question}", licence="Apache-2.0",
    ),
    _built_in("countdown", "Countdown, three numbers", "countdown"),
    _built_in("countdown-4", "Countdown, four numbers", "countdown", 4),
    _built_in("chain", "Arithmetic chains", "chain"),
    _built_in("gcd", "Greatest common divisors", "gcd"),
    _built_in("linear", "Linear equations", "linear"),
    _built_in("words", "Word problems", "words"),
    _built_in("general", "Everyday messages", "general"),
)  # fmt: skip
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
_OTHER_NAMES = {
    "aime24": "aime2024", "aime25": "aime2025", "amc2023": "amc23", "gpqa": "gpqa-diamond",
    "mgsm": "mgsm-zh", "lcb": "livecodebench", "mbpps": "mbpp-sanitized", "countdown3": "countdown",
    "openaihumaneval": "humaneval",
}  # fmt: skip
_FILE_SAMPLES = 8


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name in any spelling, or one made of a file of problems and answers.

    `MATH-500`, `math_500` and the hub's `HuggingFaceH4/MATH-500` are `math500`. Any other name is refused, with the
    closest ones.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if Path(name).suffix in (".jsonl", ".json", ".csv", ".parquet") or name.startswith(HUB):
        return _of_file(name)
    known = {_plain(one.name): one for one in _ALL} | {_plain(one.hub): one for one in reversed(_ALL) if one.hub}
    known |= {other: BENCHMARKS[own] for other, own in _OTHER_NAMES.items()}
    plain = _plain(name)
    if plain in known:
        return known[plain]
    near = difflib.get_close_matches(plain, [_plain(one) for one in BENCHMARKS], n=3, cutoff=0.5)
    close = [known[one].name for one in near]
    mend = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(BENCHMARKS)}"
    raise HoneError(f"no benchmark {name!r}; {mend} (a file of rows with problem and answer is one too)")


def load_benchmark(
    name: str,
    data: str | None = None,
    *,
    count: int = 0,
    seed: int = 0,
    split: Split = "test",
    since: str | None = None,
    until: str | None = None,
) -> tuple[Benchmark, list[Problem], str]:
    """Return a benchmark, its problems, and where they come from: a file, the hub's name, or `built in`.

    `data` is a file of its rows in the place of the hub. `count` takes so many of them (0: all; of a built-in task,
    200), chosen by `seed`. `split` is that of a built-in task. `since` and `until` are days, 2024-08-01, or months.
    """
    benchmark = find_benchmark(name)
    if (since or until) and not benchmark.is_dated:
        raise HoneError(f"{benchmark.name} has no dates, so no window can be asked for")
    if benchmark.task:
        if data:
            raise HoneError(f"{benchmark.name} is a built-in task, so it has no data: leave --data {data} out")
        made = problems(
            benchmark.task, split=split, count=count or BUILT_IN_PROBLEMS, seed=seed, num_numbers=benchmark.num_numbers
        )
        return benchmark, made, "built in"
    if not benchmark.hub:
        if data:
            raise HoneError(f"{name} is a set of rows itself: leave --data {data} out")
        data = name
    mapping: dict[str, Any] = {"format": benchmark.format, "prompt": benchmark.prompt, **benchmark.fields}
    try:
        found = load_problems(
            data or benchmark.path, count=count, seed=seed, hub_split=benchmark.hub_split, name=benchmark.name,
            hub_config=benchmark.hub_config, since=since or "", until=until or "", **mapping,
        ).problems  # fmt: skip
    except HoneError as error:
        if data or not any(part in str(error) for part in ("cannot be loaded", "needs `datasets`")):
            raise
        raise HoneError(f"{error}; where you have the set as a file, name it: --data FILE") from error
    if benchmark.subject_in_id:
        found = [_with_subject(problem) for problem in found]
    return benchmark, found, data or benchmark.hub


def _of_file(path: str) -> Benchmark:
    """Return the benchmark that a file, or any set of the hub, is by itself: mathematics, with the answer in a box."""
    name = path.removeprefix(HUB).replace("/", "-") if path.startswith(HUB) else Path(path).stem
    fields = {"question": "problem|question|prompt", "subject": "subject|subfield|type"}
    return Benchmark(
        name=name, title=path, samples=_FILE_SAMPLES, hub_split="test", format="math", fields=fields, prompt=MATHS
    )


_SUBJECT = re.compile(r"[^/]+/([^/]+?)(?:_(?:dev|val|test))?/[^/]+")


def _with_subject(problem: Problem) -> Problem:
    """Return a problem with its subject, which its id names, as `ceval/law_val/3` does."""
    found = _SUBJECT.fullmatch(problem.id)
    if found is None or "subject" in problem.tags:
        return problem
    return replace(problem, tags={**problem.tags, "subject": found[1]})


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
