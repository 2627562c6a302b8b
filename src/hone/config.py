"""Recipes: typed, frozen, and refused by name where they are wrong, before any work.

A recipe is a TOML file of `[[stage]]` tables. Defaults are the vetted setting and stand here alone; a field's one line
is also its help text. The module knows no torch and runs nothing.
"""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from hone.types import CustomReward, HoneError, RewardRule, SamplingParams

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Problems(Strict):
    """Which problems a stage works on."""

    task: Literal["countdown", "chain", "gcd", "linear"] = "countdown"
    """The generator of the problems."""
    split: Literal["train"] = "train"
    """The split of training problems; the splits are disjoint by a hash of each problem."""
    count: Count = 1000
    """How many different problems."""
    num_numbers: Annotated[int, Field(ge=2, le=6)] = 3
    """How many numbers a Countdown problem or an arithmetic chain has."""
    chinese_share: Share = 0.4
    """The share of questions asked in Chinese; the others are English."""
    seed: int = 0
    """Chooses and orders the problems."""


class HeldOutProblems(Problems):
    """Problems to measure on, never trained on."""

    split: Literal["validation", "test"] = "validation"  # type: ignore[assignment]
    """`validation` for choices while a recipe is made, `test` for the figures that are reported."""
    count: Count = 200
    """How many different problems."""


class BenchmarkProblems(HeldOutProblems):
    """Problems for final figures."""

    split: Literal["validation", "test"] = "test"
    """`validation` for choices while a recipe is made, `test` for the figures that are reported."""
    count: Count = 500
    """How many different problems."""


class Dataset(Strict):
    """Problems of a file, a folder or a hub dataset, made of its rows by a few field names."""

    path: str
    """A .jsonl, .json, .csv or .parquet file, a folder saved by `datasets`, or hub:owner/name."""
    format: str = ""
    """A known form of rows, which fills in the settings below: gsm8k, math, mbpp, leetcode, ... (docs/rewards.md)."""
    question: str = ""
    """The field that holds the question."""
    answer: str = ""
    """The field that holds the reference answer or, for code, a right program if there is one."""
    id: str = ""
    """The field that holds the row's id; without one it is the file's name and the line."""
    choices: str = ""
    """The field that holds the choices, a list or a table."""
    tests: str = ""
    """The field that holds a program's tests."""
    setup: str = ""
    """The field that holds code which precedes a program."""
    verifier: Literal["", "number", "expression", "math", "choice", "code"] = ""
    """What decides whether an answer is right."""
    extract: Literal["", "tags", "boxed", "phrase", "choice", "code", "auto"] = ""
    """Where in a completion the answer stands."""
    prompt: str = ""
    """The message that asks the question: {question} and {choices} are filled in."""
    language: str = ""
    """The language of the questions; by default told from the script of each."""
    hub_config: str = ""
    """The configuration of a hub dataset."""
    hub_split: str = "train"
    """The split of a hub dataset."""
    split: Literal["all", "train", "validation", "test"] = "all"
    """All rows, or those of a split by a hash of the question (64, 16 and 20 percent)."""
    count: Annotated[int, Field(ge=0)] = 0
    """How many problems; 0: all."""
    seed: int = 0
    """Chooses and orders the problems."""
    max_bad_rows: Annotated[int, Field(ge=0)] = 0
    """How many rows that cannot be used are left out; one more is an error."""


HELD_OUT_ROWS = 200  # at most so many rows of a dataset's validation split are measured on while training


def _problems_tag(value: Any) -> str:
    named = value if isinstance(value, dict) else {"path"} if isinstance(value, Dataset) else {}
    return "dataset" if "path" in named else "generated"


_FROM_FILE = Annotated[Dataset, Tag("dataset")]
TrainingProblems = Annotated[Annotated[Problems, Tag("generated")] | _FROM_FILE, Discriminator(_problems_tag)]
MeasuredProblems = Annotated[Annotated[HeldOutProblems, Tag("generated")] | _FROM_FILE, Discriminator(_problems_tag)]
FinalProblems = Annotated[Annotated[BenchmarkProblems, Tag("generated")] | _FROM_FILE, Discriminator(_problems_tag)]


class Corpus(Strict):
    """Generated supervised data: the pages that the embedded base model is trained on."""

    source: Literal["countdown-corpus"] = "countdown-corpus"
    """The generator of the pages."""
    variant: Literal["plain", "curated", "entangled"] = "plain"
    """`curated` has fewer guesses; `entangled` makes good traces bilingual more often (see docs/base-tiny.md)."""
    count: Count = 100_000
    """How many pages."""
    four_numbers_share: Share = 0.1
    """The share of pages about four numbers; the others are about three."""
    chinese_share: Share = 0.4
    """The share of questions asked in Chinese."""


class Rows(Strict):
    """Supervised data: what a rejection stage kept, or a file."""

    stage: str = ""
    """A rejection stage that comes before."""
    path: str = ""
    """A file with rows {prompt, completion}, or {messages} of one question and one answer."""

    @model_validator(mode="after")
    def _one(self) -> Rows:
        if bool(self.stage) == bool(self.path):
            raise ValueError("name a rejection stage or a path, one of the two")
        return self


def _data_tag(value: Any) -> str:
    named = value if isinstance(value, dict) else value.model_dump() if isinstance(value, Rows) else {}
    return "rows" if "stage" in named or "path" in named else "corpus"


SftData = Annotated[Annotated[Corpus, Tag("corpus")] | Annotated[Rows, Tag("rows")], Discriminator(_data_tag)]


class Sampling(Strict):
    """How completions are drawn."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 takes the likeliest token; 1 samples from the model itself."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the smallest set of tokens that has this much probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Draw from this many likeliest tokens; 0: from all."""
    min_p: Share = 0.0
    """Leave out tokens less likely than this share of the likeliest."""
    max_tokens: Count = 256
    """A completion is cut after this many tokens."""
    stop: tuple[str, ...] = ()
    """A completion also ends where its text contains one of these."""

    def params(self) -> SamplingParams:
        return SamplingParams(**self.model_dump())


class Shape(Strict):
    """The size of a decoder that is made from nothing."""

    model_type: Literal["llama", "qwen2", "qwen3"] = "qwen2"
    hidden_size: Count = 128
    intermediate_size: Count = 352
    num_hidden_layers: Count = 3
    num_attention_heads: Count = 4
    num_key_value_heads: Count = 2
    max_position_embeddings: Count = 512


class Optimizer(Strict):
    """AdamW and its schedule."""

    learning_rate: Annotated[float, Field(gt=0)]
    """The highest learning rate."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps over which the rate rises from nothing."""
    final_share: Share = 1.0
    """The rate falls along a cosine to this share of the highest; 1 keeps it constant."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay of the matrices' weights."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this norm."""
    micro_batch_tokens: Count = 4096
    """Places, padding included, that go through the model at once: memory against speed, never the result."""


class Evaluation(Strict):
    """A held-out evaluation while training, sampled as in training (from a supervised model: temperature 1)."""

    every: Count = 10
    """Steps between evaluations; there is one more after the last step and, in RL, before the first."""
    samples: Count = 2
    """Completions a problem."""
    problems: MeasuredProblems = HeldOutProblems()


class _Stage(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """The stage's name, by which others start from it."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The models that the stage reads: names of stages, or of models elsewhere."""
        raise NotImplementedError

    @property
    def problem_sets(self) -> tuple[Problems | Dataset, ...]:
        """All problems that the stage works on or measures by."""
        return ()

    @property
    def files(self) -> tuple[str, ...]:
        """The data that the stage reads: paths of files and folders, names of hub datasets."""
        return tuple(problems.path for problems in self.problem_sets if isinstance(problems, Dataset))

    @property
    def functions(self) -> tuple[str, ...]:
        """The user's own functions that the stage calls, as `package.module:name`."""
        return ()


class SftStage(_Stage):
    """Supervised fine-tuning, from a model or, given a shape, from nothing (which is pretraining)."""

    kind: Literal["sft"]
    start_from: str | Shape
    """A stage, a model folder, an embedded model or a hub name; or the shape of a new model."""
    data: SftData
    """What is learned from: generated pages, the rows that a rejection stage kept, or a file."""
    template: Literal["chat", "r1-zero"] = "chat"
    """How a question becomes a prompt."""
    epochs: Count = 1
    """Passes over the data."""
    batch_size: Count = 256
    """Rows of an optimizer step."""
    optimizer: Optimizer
    evaluation: Evaluation | None = None
    """Held-out evaluations while training, if any."""
    checkpoint_every: Count = 100
    """Steps between checkpoints."""

    @property
    def inputs(self) -> tuple[str, ...]:
        models = (self.start_from,) if isinstance(self.start_from, str) else ()
        return models + ((self.data.stage,) if isinstance(self.data, Rows) and self.data.stage else ())

    @property
    def problem_sets(self) -> tuple[Problems | Dataset, ...]:
        return (self.evaluation.problems,) if self.evaluation else ()

    @property
    def files(self) -> tuple[str, ...]:
        return super().files + ((self.data.path,) if isinstance(self.data, Rows) and self.data.path else ())


class Custom(Strict):
    """A reward function of the user's own, run in a worker process with limits of time and memory."""

    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """`package.module:name`, called as name(question, response, answer); it returns a number, or None: cannot judge."""
    weight: float = 1.0
    """What its value is multiplied with."""
    reads: Literal["response", "summary"] = "response"
    """The whole response, or what follows the thinking."""


class Rewards(Strict):
    """Weights of the rule-based rewards; their sum is the reward."""

    accuracy: float = 1.0
    """For a right final answer inside the answer tags."""
    format: float = 1.0
    """For think and answer tags exactly once, in order, with nothing outside."""
    language: float = 0.0
    """For the share of the chain's words that are in the target language."""
    target_language: str | None = None
    """The target of the language reward, e.g. "en"; by default each question's own language."""
    format_variant: Literal["strict", "tolerant"] = "strict"
    """What earns the format reward: `strict`, or R1's form too, a summary without tags after the thinking."""
    partial_credit: bool = False
    """Accuracy of a program: the share of its tests that it passes, instead of all or nothing."""
    custom: tuple[Custom, ...] = ()
    """Reward functions of your own."""

    def rule(self) -> RewardRule:
        custom = tuple(CustomReward(**reward.model_dump()) for reward in self.custom)
        return RewardRule(**{**self.model_dump(), "custom": custom})

    @model_validator(mode="after")
    def _names(self) -> Rewards:
        names = ["accuracy", "format", "language", "overlong", *(reward.name for reward in self.rule().custom)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two rewards are named {twice!r}")
        return self


class Preflight(Strict):
    """What the problems and rewards of a stage must show before it starts (see `hone preflight`)."""

    count: Count = 100
    """How many of the problems are tried; `hone preflight` tries all."""
    min_gold_right: Share = 0.98
    """The reference answer, given as a completion, must score right on at least this share."""
    max_wrong_accepted: Share = 0.01
    """At most this share of the problems may take a wrong answer or an attack for right."""
    max_overlap: Annotated[int, Field(ge=0)] = 0
    """At most this many training problems may also stand in an evaluation set."""
    against: tuple[Dataset, ...] = ()
    """Evaluation sets to compare with, besides the stage's own."""


class RlStage(_Stage):
    """Group Relative Policy Optimization (DeepSeek-R1, section 2.2)."""

    kind: Literal["rl"]
    start_from: str
    """A stage, a model folder, an embedded model or a hub name."""
    problems: TrainingProblems = Problems()
    """The training problems, gone through in shuffled epochs."""
    template: Literal["chat", "r1-zero"] = "chat"
    """How a question becomes a prompt."""
    rewards: Rewards = Rewards()
    preflight: Preflight = Preflight()
    sampling: Sampling = Sampling()
    steps: Count
    """Rollout steps."""
    problems_per_step: Count = 32
    """Questions of a rollout step."""
    group_size: Annotated[int, Field(ge=2)] = 16
    """Outputs a question."""
    updates_per_step: Count = 1
    """Mini-batches of an optimizer step each, into which the outputs of a rollout step are split at random."""
    clip_low: Annotated[float, Field(gt=0)] = 0.2
    """The ratio is clipped below at 1 minus this."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """The ratio is clipped above at 1 plus this; larger than clip_low: asymmetric clipping (DAPO)."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL penalty against the reference policy; 0: none is kept."""
    reference_every: Annotated[int, Field(ge=0)] = 400
    """Steps after which the reference policy is replaced by the policy; 0: never."""
    aggregation: Literal["output", "token", "constant"] = "output"
    """What averages token losses: output, then outputs (the paper); all tokens (DAPO); a constant (Dr. GRPO)."""
    divide_by_std: bool = True
    """Divide advantages by the group's standard deviation; Dr. GRPO does not."""
    resample: Annotated[int, Field(ge=0)] = 0
    """How many times groups without signal are replaced by fresh ones (DAPO); 0: they are skipped and counted."""
    overlong: Literal["keep", "mask", "penalise"] = "keep"
    """What becomes of an output cut at max_tokens: scored as it is, left out, or its reward lowered by one."""
    max_unscorable_share: Share = 0.05
    """The run stops when more of a step's verdicts than this are unscorable."""
    optimizer: Optimizer
    evaluation: Evaluation = Evaluation()
    checkpoint_every: Count = 5
    """Steps between checkpoints."""
    store_groups: Annotated[int, Field(ge=0)] = 2
    """Groups of each step whose outputs are kept for the report."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.start_from,)

    @property
    def problem_sets(self) -> tuple[Problems | Dataset, ...]:
        return (self.problems, self.evaluation.problems, *self.preflight.against)

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(reward.function for reward in self.rewards.custom)

    @model_validator(mode="before")
    @classmethod
    def _held_out(cls, raw: Any) -> Any:
        """Take the held-out problems of a dataset from the same one, where the recipe names no others."""
        problems, evaluation = raw.get("problems"), raw.get("evaluation", {})
        if not isinstance(problems, dict) or "path" not in problems:
            return raw
        if not isinstance(evaluation, dict) or "problems" in evaluation:
            return raw
        if problems.get("split") != "train":
            raise ValueError(
                'no held-out problems: give evaluation.problems, or problems.split = "train", which keeps 16% of the '
                "rows for validation"
            )
        held_out = {**problems, "split": "validation", "count": HELD_OUT_ROWS}
        return {**raw, "evaluation": {**evaluation, "problems": held_out}}

    @model_validator(mode="after")
    def _divides(self) -> RlStage:
        if (self.problems_per_step * self.group_size) % self.updates_per_step:
            raise ValueError(
                f"{self.problems_per_step} problems x {self.group_size} outputs do not divide into "
                f"updates_per_step = {self.updates_per_step} equal mini-batches"
            )
        if 0 < self.problems.count < self.problems_per_step:
            raise ValueError(
                f"problems.count = {self.problems.count} is fewer than problems_per_step = {self.problems_per_step}"
            )
        if self.sampling.temperature == 0:
            raise ValueError("sampling.temperature = 0: the outputs of a group would all be the same")
        return self


class Filters(Strict):
    """What a right output must be, besides right, to be kept. An output that was cut is never kept."""

    format: Literal["strict", "tolerant", "any"] = "strict"
    """Which form it has (see `rewards.format_variant`)."""
    min_language: Share = 0.95
    """At least this share of the chain's words is in the question's language."""
    max_repetition: Share = 0.2
    """At most this share of its windows of eight words stood in it before; it never ends in a loop."""
    max_paragraph: Count = 400
    """No paragraph has more words."""
    code_blocks: bool = False
    """Whether the chain may hold code blocks."""


class RejectionStage(_Stage):
    """Rejection sampling: several outputs a problem, of which right and readable ones become supervised data."""

    kind: Literal["rejection"]
    start_from: str
    """The model that is sampled: a stage, a model folder, an embedded model or a hub name."""
    problems: TrainingProblems = Problems()
    """The problems, each asked once."""
    template: Literal["chat", "r1-zero"] = "chat"
    """How a question becomes a prompt."""
    sampling: Sampling = Sampling()
    samples: Count = 8
    """Outputs a problem."""
    keep: Count = 2
    """At most so many outputs a problem are kept, so that easy problems do not crowd out hard ones."""
    filters: Filters = Filters()
    max_unscorable_share: Share = 0.05
    """The stage stops when more of its verdicts than this are unscorable."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.start_from,)

    @property
    def problem_sets(self) -> tuple[Problems | Dataset, ...]:
        return (self.problems,)


class EvaluateStage(_Stage):
    """Models side by side on the same held-out problems."""

    kind: Literal["evaluate"]
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Stages or models elsewhere."""
    problems: FinalProblems = BenchmarkProblems()
    template: Literal["chat", "r1-zero"] = "chat"
    """How a question becomes a prompt."""
    sampling: Sampling = Sampling()
    samples: Count = 4
    """Completions a problem."""
    budgets: tuple[Count, ...] = (24, 48, 96, 160, 256)
    """Accuracy is also given for completions cut at these many tokens."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.models

    @property
    def problem_sets(self) -> tuple[Problems | Dataset, ...]:
        return (self.problems,)


Stage = Annotated[SftStage | RlStage | RejectionStage | EvaluateStage, Field(discriminator="kind")]


class Recipe(Strict):
    """A run: its stages in the order they are carried out."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    summary: str = ""
    """One sentence on what the recipe makes."""
    seed: int = 0
    """Every random choice of the run follows from it."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0: all cores."""
    stage: Annotated[tuple[Stage, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _graph(self) -> Recipe:
        names = [stage.name for stage in self.stage]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two stages are named {twice!r}")
        for index, stage in enumerate(self.stage):
            for source in stage.inputs:
                if source == stage.name or source in names[index + 1 :]:
                    raise ValueError(f"stage {stage.name!r} needs {source!r}, which does not come before it")
                kinds = {earlier.name: earlier.kind for earlier in self.stage[:index]}
                rows = isinstance(stage, SftStage) and isinstance(stage.data, Rows) and source == stage.data.stage
                if rows and kinds.get(source) != "rejection":
                    raise ValueError(f"stage {stage.name!r} takes rows of {source!r}, which is no rejection stage")
                if not rows and kinds.get(source) in ("evaluate", "rejection"):
                    raise ValueError(f"stage {stage.name!r} needs a model, but {source!r} makes none")
        return self


def shipped_recipes() -> list[str]:
    folder = resources.files("hone") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str, settings: tuple[str, ...] = ()) -> Recipe:
    """Read a shipped recipe or a TOML file and apply `key=value` settings, e.g. `seed=1` or `r1_zero.steps=10`."""
    raw = _read(name)
    for setting in settings:
        _apply(raw, setting)
    return parse_recipe(raw, f"recipe {name}")


def parse_recipe(raw: dict[str, Any], where: str) -> Recipe:
    """Check and freeze a recipe's tables; refuse by name, the message beginning with `where`."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise HoneError(f"{where}: {_explain(error, raw)}") from error


def _read(name: str) -> dict[str, Any]:
    if name in shipped_recipes():
        text = (resources.files("hone") / "recipes" / f"{name}.toml").read_text("utf-8")
    elif (path := Path(name)).is_file():
        text = path.read_text("utf-8")
    else:
        raise HoneError(f"no recipe {name!r}: not a file, and the shipped ones are {', '.join(shipped_recipes())}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HoneError(f"recipe {name}: not valid TOML: {error}") from error


def _apply(raw: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals:
        raise HoneError(f"--set {setting}: write it as key=value, e.g. seed=1 or r1_zero.steps=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    stages = {stage.get("name"): stage for stage in raw.get("stage", [])}
    first, *rest = key.split(".")
    table = raw
    if rest:
        if first not in stages:
            raise HoneError(f"--set {setting}: no stage {first!r}{_closest(first, stages)}")
        table = stages[first]
        for part in rest[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise HoneError(f"--set {setting}: {part} is not a table")
    table[rest[-1] if rest else first] = value


# What pydantic adds to a place: which kind it took it for.
_TAGS = ("sft", "rl", "rejection", "evaluate", "generated", "dataset", "corpus", "rows")


def _explain(error: ValidationError, raw: dict[str, Any]) -> str:
    """One line for the first thing that is wrong: where, what, and for an unknown key the closest known one."""
    # A stage that is refused also makes the tuple of stages too short; a misspelt key is also a missing one, and says
    # more than that.
    errors = error.errors(include_url=False)
    errors = [found for found in errors if found["type"] != "too_short"] or errors
    first = min(errors, key=lambda found: found["type"] != "extra_forbidden")
    where = [part for part in first["loc"] if part not in _TAGS]
    if where[:1] == ["stage"] and len(where) > 1 and isinstance(where[1], int):
        stage = raw["stage"][where[1]]
        where = [f"stage {stage.get('name', where[1] + 1)!r}" if isinstance(stage, dict) else "stage", *where[2:]]
    place = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"{place}: no such key{_closest(key, _field_names() - {key})}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_pattern_mismatch" and first["loc"][-1] == "function":
        message = f"{first['input']!r} is not of the form package.module:name"
    # The held-out problems that are made of the training problems repeat what is wrong with those.
    num_others = len({(found["loc"][-1:], found["msg"]) for found in errors}) - 1
    more = f" (and {num_others} more)" if num_others else ""
    return f"{place + ': ' if place else ''}{message}{more}"


def _field_names(model: type[BaseModel] = Strict) -> set[str]:
    return set(model.model_fields).union(*(_field_names(child) for child in model.__subclasses__()))


def _closest(word: str, known: Any) -> str:
    match = difflib.get_close_matches(word, [str(name) for name in known], 1, 0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
