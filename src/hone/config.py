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

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hone.types import HoneError, SamplingParams

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
    problems: HeldOutProblems = HeldOutProblems()


class _Stage(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """The stage's name, by which others start from it."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The models that the stage reads: names of stages, or of models elsewhere."""
        raise NotImplementedError


class SftStage(_Stage):
    """Supervised fine-tuning, from a model or, given a shape, from nothing (which is pretraining)."""

    kind: Literal["sft"]
    start_from: str | Shape
    """A stage, a model folder, an embedded model or a hub name; or the shape of a new model."""
    data: Corpus
    """What is learned from."""
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
        return (self.start_from,) if isinstance(self.start_from, str) else ()


class Rewards(Strict):
    """Weights of the rule-based rewards; their sum is the reward."""

    accuracy: float = 1.0
    """For a right final answer inside the answer tags."""
    format: float = 1.0
    """For think and answer tags exactly once, in order, with nothing outside."""
    language: float = 0.0
    """For the share of the chain's words that are in the question's language."""


class RlStage(_Stage):
    """Group Relative Policy Optimization (DeepSeek-R1, section 2.2)."""

    kind: Literal["rl"]
    start_from: str
    """A stage, a model folder, an embedded model or a hub name."""
    problems: Problems = Problems()
    """The training problems, gone through in shuffled epochs."""
    template: Literal["chat", "r1-zero"] = "chat"
    """How a question becomes a prompt."""
    rewards: Rewards = Rewards()
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

    @model_validator(mode="after")
    def _divides(self) -> RlStage:
        if (self.problems_per_step * self.group_size) % self.updates_per_step:
            raise ValueError(
                f"{self.problems_per_step} problems x {self.group_size} outputs do not divide into "
                f"updates_per_step = {self.updates_per_step} equal mini-batches"
            )
        if self.problems.count < self.problems_per_step:
            raise ValueError(
                f"problems.count = {self.problems.count} is fewer than problems_per_step = {self.problems_per_step}"
            )
        if self.sampling.temperature == 0:
            raise ValueError("sampling.temperature = 0: the outputs of a group would all be the same")
        return self


class EvaluateStage(_Stage):
    """Models side by side on the same held-out problems."""

    kind: Literal["evaluate"]
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Stages or models elsewhere."""
    problems: BenchmarkProblems = BenchmarkProblems()
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


Stage = Annotated[SftStage | RlStage | EvaluateStage, Field(discriminator="kind")]


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
                if kinds.get(source) == "evaluate":
                    raise ValueError(f"stage {stage.name!r} needs a model, but {source!r} is an evaluation")
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


def _explain(error: ValidationError, raw: dict[str, Any]) -> str:
    """One line for the first thing that is wrong: where, what, and for an unknown key the closest known one."""
    # A misspelt key is also a missing one: the misspelling says more.
    first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    where = [part for part in first["loc"] if part not in ("sft", "rl", "evaluate")]
    if where[:1] == ["stage"] and len(where) > 1 and isinstance(where[1], int):
        stage = raw["stage"][where[1]]
        where = [f"stage {stage.get('name', where[1] + 1)!r}" if isinstance(stage, dict) else "stage", *where[2:]]
    place = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        return f"{place}: no such key{_closest(str(first['loc'][-1]), _field_names())}"
    message = first["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place + ': ' if place else ''}{message}{more}"


def _field_names(model: type[BaseModel] = Strict) -> set[str]:
    return set(model.model_fields).union(*(_field_names(child) for child in model.__subclasses__()))


def _closest(word: str, known: Any) -> str:
    match = difflib.get_close_matches(word, [str(name) for name in known], 1, 0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
