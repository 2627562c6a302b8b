"""The card of a released model: what it is, how it came to be, its figures, limits and licences.

It is made of what the run recorded and of nothing else: the recipe in the manifest, the stages' folders, the results of
evaluate stages. Where this machine keeps things is not told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from safetensors import safe_open

from hone.config import (
    Corpus,
    Dataset,
    EvaluateStage,
    Problems,
    Recipe,
    RejectionStage,
    ReleaseStage,
    RewardModelStage,
    RlStage,
    Rows,
    SftStage,
    Stage,
    Traces,
    parse_recipe,
)
from hone.models.folders import EMBEDDED
from hone.models.loading import read_raw_config
from hone.record.files import read_rows as read_log
from hone.stages.problems import find_problems
from hone.stages.rejection import ROWS
from hone.tasks import without_language
from hone.tasks.overlap import find_overlap
from hone.tasks.rows import HUB, read_rows
from hone.types import HoneError, Message, Problem

# Licences that let their works go into one of another licence, so long as they are carried along.
PERMISSIVE = ("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "unlicense")
NOT_STATED = "not stated"
MODEL_STAGES = (SftStage, RlStage)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run recorded of itself."""

    folder: Path
    recipe: Recipe
    versions: dict[str, str]
    seconds: dict[str, float | None]

    @classmethod
    def read(cls, folder: Path) -> Run:
        file = folder / "manifest.json"
        try:
            raw = json.loads(file.read_text("utf-8"))
            recipe = parse_recipe(raw["recipe"], str(file))
            seconds = {name: record["seconds"] for name, record in raw["stages"].items()}
            return cls(folder, recipe, raw["versions"], seconds)
        except (OSError, ValueError, KeyError) as error:
            raise HoneError(f"{file}: cannot be read: {error!r}; a release is a stage of a run") from error

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.recipe.stage if stage.name == name), None)

    def ancestors(self, name: str) -> list[Stage]:
        """Return the stages that a stage comes from, itself included, in the order they were carried out."""
        wanted = {name}
        for stage in reversed(self.recipe.stage):
            if stage.name in wanted:
                wanted.update(stage.inputs)
        return [stage for stage in self.recipe.stage if stage.name in wanted]

    def base(self, name: str) -> str | None:
        """Return the model elsewhere that a stage's weights began as; None where they began from nothing."""
        stage = self.stage(name)
        if stage is None:
            return name
        source = stage.start_from if isinstance(stage, MODEL_STAGES) else None
        return self.base(source) if isinstance(source, str) else None


@dataclass(frozen=True, slots=True)
class Source:
    """Something that a model was made of, and its licence."""

    role: str  # base, teacher, reward model, judge or data
    name: str
    licence: str
    folder: Path | None = None  # where files of the licence may lie


def model_card(
    stage: ReleaseStage, run: Run, name: str, folder: Path, sources: Sequence[Source], measured: Sequence[EvaluateStage]
) -> str:
    """Return the model card, with the front matter that the Hugging Face hub reads."""
    made = run.stage(name)
    assert isinstance(made, MODEL_STAGES)
    learned = _learned_problems(run, name)
    bases = [source.name for source in sources if source.role == "base"]
    hub_data = {
        label(path)
        for path in (path for stage in run.ancestors(name) for path in learned_files(stage))
        if path.startswith(HUB)
    }
    head = [
        "---", *combined_licence(stage.licence, sources), *_listed("language", _languages(run, name, learned)),
        *_listed("base_model", bases), "library_name: transformers", "pipeline_tag: text-generation",
        *_listed("tags", ["hone", "reasoning", run.recipe.name]), *_listed("datasets", sorted(hub_data)), "---",
    ]  # fmt: skip
    titled = f" ({made.title})" if made.title else ""
    lines = [
        f"# {run.recipe.name}: {name}{titled}", "", *_what_it_is(run, made, folder, bases), "",
        "## How it was made", "", *_how(run, name), "",
        "## Figures", "", *_figures(run, name, measured, learned), "",
        "## Limits", "", *([stage.limits, ""] if stage.limits else []),
        "What the figures above do not measure is not known. A chain of thought can be wrong, and so can an answer "
        "after a good one.", "",
        "## Licences", "", *licence_table(stage.licence, sources),
    ]  # fmt: skip
    return "\n".join([*head, *lines]) + "\n"


def _what_it_is(run: Run, made: SftStage | RlStage, folder: Path, bases: Sequence[str]) -> list[str]:
    shape = read_raw_config(folder)  # of any architecture, so that not every number need be there
    ties = "tied" if shape.get("tie_word_embeddings") else "untied"
    sizes = {
        "width": "hidden_size", "layers": "num_hidden_layers", "attention heads": "num_attention_heads",
        "key/value heads": "num_key_value_heads", "symbols": "vocab_size", "positions": "max_position_embeddings",
    }  # fmt: skip
    numbers = ", ".join(f"{what} {shape[key]:,}" for what, key in sizes.items() if key in shape)
    began = f"from {bases[0]}" if bases else "from nothing"
    # A recipe's sentence says what its own settings make, not what a preset of it does.
    summary = f" {run.recipe.summary}" if run.recipe.summary and not run.recipe.preset else ""
    prompt = "R1-Zero's template" if made.template == "r1-zero" else "the chat template of this folder"
    return [
        f"A language model of {num_parameters(folder / 'model.safetensors'):,} parameters, made {began} by the stage "
        f"`{made.name}` of the recipe `{run.recipe.name}`.{summary}",
        "",
        f"Shape: {shape['model_type']}, {numbers}, {ties} embeddings, {_dtype(folder / 'model.safetensors')}. "
        f"It was trained on {prompt}.",
        "",
        "`hone chat FOLDER` talks to it. transformers loads the weights with `AutoModelForCausalLM.from_pretrained` "
        "and the tokenizer with `PreTrainedTokenizerFast.from_pretrained`.",
    ]


def _how(run: Run, name: str) -> list[str]:
    versions = ", ".join(f"{part} {version}" for part, version in run.versions.items())
    rows = [_how_row(run, stage) for stage in run.ancestors(name)]
    preset = f" --set preset={run.recipe.preset}" if run.recipe.preset else ""
    return [
        f"`hone run {run.recipe.name}{preset}`, seed {run.recipe.seed}; {versions}.", "",
        "| stage | kind | starts from | learns from | steps | learning rate | seconds |",
        "|---|---|---|---|---|---|---|", *rows,
    ]  # fmt: skip


def _how_row(run: Run, stage: Stage) -> str:
    titled = f"{stage.name} ({stage.title})" if stage.title else stage.name
    start = getattr(stage, "start_from", "")
    start = (start if run.stage(start) else model_label(start)) if isinstance(start, str) else "nothing"
    optimizer = getattr(stage, "optimizer", None)
    rate = f"{optimizer.learning_rate:g}" if optimizer else ""
    log = read_log(run.folder / stage.name / "metrics.jsonl")
    steps = str(log[-1].get("step", "")) if log else str(getattr(stage, "steps", ""))
    seconds = run.seconds.get(stage.name)
    spent = "" if seconds is None else f"{seconds:.0f}"
    cells = (titled, stage.kind, start, _learns(run, stage), steps, rate, spent)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _learns(run: Run, stage: Stage) -> str:
    """Say what a stage learned from, or what rows it made: how many, by whom."""
    match stage:
        case SftStage(data=Corpus() as corpus):
            return f"{corpus.count:,} generated pages ({corpus.source}, {corpus.variant})"
        case SftStage(data=Traces() as traces):
            return f"{traces.count:,} worked problems ({traces.task})"
        case SftStage(data=Rows() as rows):
            read = " and ".join(rows.stages) or label(rows.path)
            teacher = stage.teacher and (stage.teacher if run.stage(stage.teacher) else model_label(stage.teacher))
            by = f"; the teacher {teacher} ({stage.objective})" if teacher else ""
            return f"rows of {read}, {stage.epochs} epochs, batches of {stage.batch_size}{by}"
        case RlStage():
            rewards = stage.rewards
            parts = {"accuracy": rewards.accuracy, "format": rewards.format, "language": rewards.language}
            custom = {reward.function: reward.weight for reward in rewards.custom}
            given = ", ".join(f"{part} {weight:g}" for part, weight in {**parts, **custom}.items() if weight)
            general = f"; general prompts of {_problems_label(stage.general.problems)}" if stage.general else ""
            step = f"{stage.problems_per_step} x {stage.group_size} outputs a step"
            return f"{_problems_label(stage.problems)}, {step}; rewards: {given}{general}"
        case RejectionStage():
            return f"makes rows: {_kept(run.folder / stage.name / ROWS)} of {_problems_label(stage.problems)}"
        case RewardModelStage():
            read = " and ".join(stage.data.stages) or label(stage.data.path)
            return f"preferences of {read}, {stage.objective}"
    return ""


def _kept(file: Path) -> str:
    """Say how many of a rejection stage's outputs were kept, and by which weights they were written."""
    table = pq.read_table(file, columns=["rejected_by", "policy"])
    policies = ", ".join(sorted(set(table["policy"].to_pylist())))
    return f"{table['rejected_by'].to_pylist().count('')} kept of {len(table)} outputs (weights {policies})"


def _problems_label(problems: Problems | Dataset) -> str:
    if isinstance(problems, Dataset):
        count = f"{problems.count:,} of " if problems.count else ""
        return f"{count}{label(problems.path)}" + ("" if problems.split == "all" else f", split {problems.split}")
    return f"{problems.count:,} generated {problems.task} problems"


def _figures(run: Run, name: str, measured: Sequence[EvaluateStage], learned: Sequence[Problem]) -> list[str]:
    if not measured:
        return ["None: the recipe names no evaluation of this model."]
    lines = [
        "| benchmark | pass@1 [95% interval] | cons@k | samples a problem | problems | temperature, top-p "
        "| longest output | mean length |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stage in measured:
        results = json.loads((run.folder / stage.name / "results.json").read_text("utf-8"))
        for row in results:
            if row["stage"] == name:
                low, high = row["pass_at_1_ci95"]
                majority = "" if row["cons_at_k"] is None else f"{row['cons_at_k']:.3f}"
                sampling = stage.sampling
                lines.append(
                    f"| {row['benchmark']} | {row['pass_at_1']:.3f} [{low:.3f}, {high:.3f}] | {majority} "
                    f"| {row['samples']} | {row['num_problems']} | {sampling.temperature:g}, {sampling.top_p:g} "
                    f"| {sampling.max_tokens} | {row['completion_length_mean']:.1f} |"
                )
    return [*lines, "", "Intervals are over problems.", *(_disjointness(stage, learned) for stage in measured)]


def _disjointness(stage: EvaluateStage, learned: Sequence[Problem]) -> str:
    """Say how many of the problems that a model was measured on it was trained on too, by id and by words."""
    problems = find_problems(stage.problems)
    where = f"Of the {len(problems)} problems of `{stage.name}`"
    if not learned:
        return f"{where} none were compared with what it was trained on: no questions of that are known here."
    ids = {without_language(problem.id) for problem in learned}
    texts = [(str(number), problem.question) for number, problem in enumerate(learned)]
    asked = {str(number): problem for number, problem in enumerate(problems)}
    overlaps = find_overlap(texts, [(number, problem.question) for number, problem in asked.items()])
    same = {overlap.eval_id for overlap in overlaps if overlap.kind != "n-gram"}
    if not isinstance(stage.problems, Dataset):
        same |= {number for number, problem in asked.items() if without_language(problem.id) in ids}
    near = {overlap.eval_id for overlap in overlaps} - same
    split = "" if isinstance(stage.problems, Dataset) else " Generated problems are split by a hash of each."
    return (
        f"{where}, {len(same)} stand among the {len(learned):,} that it was trained on, and {len(near)} more share "
        f"half of their 13-grams with one of them.{split}"
    )


def _learned_problems(run: Run, name: str) -> list[Problem]:
    """Return the questions that a model, or what its rows came from, was trained on."""
    found = [
        problem for stage in run.ancestors(name) for asked in _training_sets(stage) for problem in find_problems(asked)
    ]
    return found + [
        Problem(id=f"{label(path)}/{number}", task="rows", messages=(Message(role="user", content=prompt),), answer="")
        for stage in run.ancestors(name)
        if isinstance(stage, SftStage) and isinstance(stage.data, Rows) and (path := stage.data.path)
        for number, prompt in _prompts(path)
    ]


def _prompts(path: str) -> Iterator[tuple[int, str]]:
    for number, row in read_rows(path):
        match row:
            case {"prompt": str(prompt)} | {"messages": [{"role": "user", "content": str(prompt)}, *_]}:
                yield number, prompt


def _languages(run: Run, name: str, learned: Sequence[Problem]) -> list[str]:
    corpora = [stage.data for stage in run.ancestors(name) if isinstance(stage, SftStage)]
    pages = {"en", "zh"} if any(isinstance(data, Corpus) for data in corpora) else set()
    traces = {"en"} if any(isinstance(data, Traces) for data in corpora) else set()
    return sorted({problem.language for problem in learned} | pages | traces)


def licence_table(licence: str, sources: Sequence[Source]) -> list[str]:
    rows = [f"| {source.role} | {source.name} | {source.licence} |" for source in sources]
    llama = any(source.licence.startswith("llama") for source in sources if source.role in ("base", "teacher"))
    built = ["", "Built with Llama. Whoever hands it out under a name lets the name begin with Llama."] if llama else []
    too = "The licence of the base holds for these weights too. " if any(s.role == "base" for s in sources) else ""
    return [
        "| part | name | licence |", "|---|---|---|", f"| these weights | | {licence} |", *rows, *built, "",
        f"{too}Licences that came as files with a model are in LICENSES.",
    ]  # fmt: skip


def _listed(key: str, values: Sequence[str]) -> list[str]:
    return [f"{key}: {json.dumps(list(values), ensure_ascii=False)}"] if values else []


def model_label(name: str) -> str:
    """Return what a model goes by elsewhere: a folder's path says where it lies here, so only its end is told."""
    return name if name in EMBEDDED or not Path(name).expanduser().exists() else Path(name).expanduser().resolve().name


def label(path: str) -> str:
    return path.removeprefix(HUB) if path.startswith(HUB) else Path(path).name


def learned_files(stage: Stage) -> tuple[str, ...]:
    """Return the data sets from elsewhere that a stage learned from; those that it was measured on do not count."""
    files = [problems.path for problems in _training_sets(stage) if isinstance(problems, Dataset)]
    if isinstance(stage, SftStage) and isinstance(stage.data, Rows) and stage.data.path:
        files.append(stage.data.path)
    if isinstance(stage, RewardModelStage) and stage.data.path:
        files.append(stage.data.path)
    return tuple(files)


def _training_sets(stage: Stage) -> tuple[Problems | Dataset, ...]:
    if isinstance(stage, RlStage):
        return (stage.problems, *((stage.general.problems,) if stage.general else ()))
    return (stage.problems,) if isinstance(stage, RejectionStage) else ()


def combined_licence(licence: str, sources: Sequence[Source]) -> list[str]:
    """Return the front matter about licences: `other`, all named, where that of a model, or its lack, demands it."""
    of_models = [source.licence for source in sources if source.role in ("base", "teacher")]
    strict = [one for one in dict.fromkeys(of_models) if one not in (*PERMISSIVE, licence)]
    if not strict:
        return [f"license: {licence}"]
    named = "-and-".join([licence, *strict]).replace(" ", "-")
    return ["license: other", f"license_name: {named}", "license_link: LICENSES/README.md"]


def num_parameters(file: Path) -> int:
    """Count the weights of a safetensors file by its header."""
    total = 0
    with safe_open(file, framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118 - not a mapping
            size = 1
            for length in opened.get_slice(key).get_shape():
                size *= length
            total += size
    return total


def _dtype(file: Path) -> str:
    with safe_open(file, framework="pt") as opened:
        kinds = {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118 - not a mapping
    return ", ".join({"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(kind, kind) for kind in sorted(kinds))
