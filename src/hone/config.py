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


Template = Literal["chat", "r1-zero"]


class Problems(Strict):
    """Which problems a stage works on."""

    task: Literal["countdown", "chain", "gcd", "linear", "general", "words"] = "countdown"
    """The generator of the problems."""
    split: Literal["train"] = "train"
    """The split of training problems; the splits are disjoint by a hash of each problem."""
    count: Count = 1000
    """How many different problems."""
    num_numbers: Annotated[int, Field(ge=2, le=6)] = 3
    """How many numbers a Countdown problem, an arithmetic chain or a word problem has."""
    chinese_share: Share = 0.4
    """The share of questions asked in Chinese; the others are English. Word problems are always English."""
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
    verifier: Literal["", "number", "expression", "math", "choice", "code", "rubric", "instructions", "judge"] = ""
    """What decides whether an answer is right."""
    extract: Literal["", "tags", "boxed", "phrase", "choice", "code", "auto", "summary"] = ""
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
    variant: Literal["plain", "curated", "entangled", "solved"] = "plain"
    """`curated` has fewer guesses; `entangled` makes good traces bilingual more often; `solved` has only right ones."""
    count: Count = 100_000
    """How many pages."""
    four_numbers_share: Share = 0.1
    """The share of pages about four numbers; the others are about three."""
    chinese_share: Share = 0.4
    """The share of questions asked in Chinese."""
    documents_share: Share = 0.0
    """The share of pages that hold two or three answers of one writer, from which few-shot prompting is learned."""
    general_share: Share = 0.0
    """The share of pages that are messages of everyday: greetings, facts, refusals."""


class Traces(Strict):
    """Generated supervised data: training problems with their solutions worked, for a cold start."""

    task: Literal["words"]
    """The generator of the problems; one that can write down how they are solved."""
    count: Count = 500
    """How many different problems."""
    num_numbers: Annotated[tuple[Annotated[int, Field(ge=2, le=6)], ...], Field(min_length=1)] = (3,)
    """How many numbers a problem has; of several sizes there are equally many."""
    seed: int = 0
    """Chooses the problems, and how each is written down."""


class Rows(Strict):
    """Supervised data: what rejection stages kept, or a file."""

    stages: tuple[str, ...] = ()
    """Rejection stages that come before; their rows are learned from together."""
    path: str = ""
    """A file with rows {prompt, completion}, or {messages} of one question and one answer; or hub:owner/name."""

    @model_validator(mode="after")
    def _one(self) -> Rows:
        if bool(self.stages) == bool(self.path):
            raise ValueError("name rejection stages or a path, one of the two")
        return self


def _data_tag(value: Any) -> str:
    named = value if isinstance(value, dict) else value.model_dump() if isinstance(value, Rows | Traces) else {}
    return "rows" if "stages" in named or "path" in named else "traces" if "task" in named else "corpus"


SftData = Annotated[
    Annotated[Corpus, Tag("corpus")] | Annotated[Rows, Tag("rows")] | Annotated[Traces, Tag("traces")],
    Discriminator(_data_tag),
]


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
    max_position_embeddings: Count = 1024


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
    """Tokens that go through the model at once: memory against speed, never the result."""


class Lora(Strict):
    """Low-rank adapters on every projection of a frozen model, merged into the model that the stage makes."""

    rank: Count = 16
    """The rank of each update."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """An update is multiplied by alpha / rank."""


class Evaluation(Strict):
    """A held-out evaluation while training, sampled as the stage's `sampling` says."""

    every: Count = 10
    """Steps between evaluations; there is one more after the last step and, in RL, before the first."""
    samples: Count = 2
    """Completions a problem."""
    problems: MeasuredProblems = HeldOutProblems()


class _Stage(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """The stage's name, by which others start from it."""
    title: str = ""
    """What the paper calls the model that the stage makes, e.g. Dev1; shown beside the name."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the stage reads: names of stages, or of models elsewhere."""
        raise NotImplementedError

    @property
    def rows_of(self) -> tuple[str, ...]:
        """Those of the inputs that are rejection stages, read for their rows."""
        return ()

    @property
    def rewarders(self) -> tuple[str, ...]:
        """Those of the inputs that are reward models."""
        return ()

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
    """Supervised fine-tuning, distillation, or, given a shape, training from nothing (which is pretraining)."""

    kind: Literal["sft"]
    start_from: str | Shape
    """A stage, a model folder, an embedded model or a hub name; or the shape of a new model."""
    data: SftData
    """What is learned from: generated pages, worked problems, the rows that rejection stages kept, or a file."""
    objective: Literal["sft", "logits", "on-policy"] = "sft"
    """`sft` learns the rows, `logits` the teacher's distribution on them, `on-policy` that on outputs of its own."""
    teacher: str = ""
    """The model whose distribution is learned, of the same vocabulary; only for `logits` and `on-policy`."""
    template: Template = "chat"
    """How a question becomes a prompt."""
    epochs: Count = 1
    """Passes over the data."""
    batch_size: Count = 256
    """Rows of an optimizer step."""
    optimizer: Optimizer
    lora: Lora | None = None
    """Train low-rank adapters instead of all weights, e.g. { rank = 16, alpha = 32 }."""
    sampling: Sampling = Sampling()
    """How the model's own outputs are drawn: in evaluations, and to learn on (on-policy)."""
    evaluation: Evaluation | None = None
    """Held-out evaluations while training, if any."""
    checkpoint_every: Count = 100
    """Steps between checkpoints."""

    @property
    def inputs(self) -> tuple[str, ...]:
        models = (self.start_from,) if isinstance(self.start_from, str) else ()
        return models + self.rows_of + ((self.teacher,) if self.teacher else ())

    @property
    def rows_of(self) -> tuple[str, ...]:
        return self.data.stages if isinstance(self.data, Rows) else ()

    @property
    def problem_sets(self) -> tuple[Problems | Dataset, ...]:
        return (self.evaluation.problems,) if self.evaluation else ()

    @property
    def files(self) -> tuple[str, ...]:
        return super().files + ((self.data.path,) if isinstance(self.data, Rows) and self.data.path else ())

    @model_validator(mode="after")
    def _teaches(self) -> SftStage:
        if bool(self.teacher) != (self.objective != "sft"):
            raise ValueError(f"objective = {self.objective!r} {'needs a' if not self.teacher else 'has no'} teacher")
        if self.lora and isinstance(self.start_from, Shape):
            raise ValueError("lora: a model made from nothing has no weights that could stay as they are")
        return self


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
    format_variant: Literal["strict", "tolerant", "direct"] = "strict"
    """What earns the format reward: `strict`; `tolerant`, a summary after the thinking; `direct`, no thinking."""
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


class General(Strict):
    """General prompts in RL for all scenarios, rewarded by models of preference (DeepSeek-R1, section 2.3.4)."""

    problems: TrainingProblems = Problems(task="general")
    """The general prompts."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of a step's questions that are general, once they are there."""
    last_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """They and their rewards are there in this last share of the steps alone, since longer ends in reward hacking."""
    helpfulness: str
    """A reward model, which reads the final summary alone: a reward_model stage or a folder."""
    harmlessness: str = ""
    """A reward model, which reads the whole response."""
    rewards: Rewards = Rewards(accuracy=0.0, language=1.0, format_variant="direct")
    """What is added to the scores of the reward models; the verdicts (a rubric, a judge) are watched, not rewarded."""
    on_hacking: Literal["warn", "stop"] = "warn"
    """What follows when the reward models' score rises while accuracy or the verdicts fall."""


class Judge(Strict):
    """A generative model that judges answers where no rule can, given the reference (DeepSeek-R1, section 2.3.3)."""

    model: str
    """With an endpoint the name that it knows; without one a stage, a model folder or a hub name, run here."""
    endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """An OpenAI-compatible server, e.g. http://localhost:8000/v1; its key is read from HONE_JUDGE_KEY."""
    max_tokens: Count = 512
    """The longest judgement."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 takes the likeliest judgement."""
    parallel: Count = 8
    """Requests in flight."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds for one request."""


def _judges(judge: Judge | None) -> tuple[str, ...]:
    return (judge.model,) if judge and not judge.endpoint else ()


class RlStage(_Stage):
    """Group Relative Policy Optimization (DeepSeek-R1, section 2.2)."""

    kind: Literal["rl"]
    start_from: str
    """A stage, a model folder, an embedded model or a hub name."""
    problems: TrainingProblems = Problems()
    """The training problems, gone through in shuffled epochs."""
    template: Template = "chat"
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
    lora: Lora | None = None
    """Train low-rank adapters instead of all weights, e.g. { rank = 16, alpha = 32 }."""
    evaluation: Evaluation = Evaluation()
    checkpoint_every: Count = 5
    """Steps between checkpoints."""
    store_groups: Annotated[int, Field(ge=0)] = 2
    """Groups of each step whose outputs are kept for the report."""
    general: General | None = None
    """General prompts beside the problems: RL for all scenarios."""
    judge: Judge | None = None
    """What decides on problems whose verifier is `judge`."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.start_from, *self.rewarders, *_judges(self.judge))

    @property
    def rewarders(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.general.helpfulness, self.general.harmlessness))) if self.general else ()

    @property
    def problem_sets(self) -> tuple[Problems | Dataset, ...]:
        general = (self.general.problems,) if self.general else ()
        return (self.problems, *general, self.evaluation.problems, *self.preflight.against)

    @property
    def functions(self) -> tuple[str, ...]:
        general = self.general.rewards.custom if self.general else ()
        return tuple(reward.function for reward in (*self.rewards.custom, *general))

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
        if self.general and not 0 < round(self.problems_per_step * self.general.share) < self.problems_per_step:
            raise ValueError(
                f"general.share = {self.general.share} of {self.problems_per_step} questions is none of them, or all"
            )
        if self.general and not round(self.steps * self.general.last_share):
            raise ValueError(f"general.last_share = {self.general.last_share} of {self.steps} steps is none of them")
        return self


class Filters(Strict):
    """What a right output must be, besides right, to be kept. An output that was cut is never kept."""

    format: Literal["strict", "tolerant", "direct", "any"] = "strict"
    """Which form it has (see `rewards.format_variant`)."""
    min_language: Share = 0.95
    """At least this share of the chain's words is in the question's language."""
    max_repetition: Share = 0.2
    """At most this share of its windows of eight words stood in it before; it never ends in a loop."""
    max_paragraph: Count = 400
    """No paragraph has more words."""
    code_blocks: bool = False
    """Whether the chain may hold code blocks."""


class Shot(Strict):
    """A worked example that a base model is shown before the question (few-shot prompting)."""

    prompt: str
    """The question."""
    completion: str
    """Its answer, thinking and all."""
    language: Literal["en", "zh"] = "en"
    """It is shown before questions of this language."""


class RejectionStage(_Stage):
    """Rejection sampling: several outputs a problem, of which right and readable ones become supervised data."""

    kind: Literal["rejection"]
    start_from: str
    """The model that is sampled: a stage, a model folder, an embedded model or a hub name."""
    problems: TrainingProblems = Problems()
    """The problems, each asked once."""
    template: Template = "chat"
    """How a question becomes a prompt."""
    sampling: Sampling = Sampling()
    samples: Count = 8
    """Outputs a problem."""
    keep: Count = 2
    """At most so many outputs a problem are kept, so that easy problems do not crowd out hard ones."""
    rounds: Count = 1
    """Rounds of sampling; problems with fewer kept outputs than `keep` are in the next: hard ones get their share."""
    shots: tuple[Shot, ...] = ()
    """Worked examples shown before each question of their language."""
    summary: dict[Literal["en", "zh"], str] = {}
    """A sentence for the reader, by language, put before the answer of a kept output that has none."""
    filters: Filters = Filters()
    judge: Judge | None = None
    """What decides on problems whose verifier is `judge`."""
    max_unscorable_share: Share = 0.05
    """The stage stops when more of its verdicts than this are unscorable."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.start_from, *_judges(self.judge))

    @property
    def problem_sets(self) -> tuple[Problems | Dataset, ...]:
        return (self.problems,)


class Preferences(Strict):
    """What a reward model learns from: outputs of rejection stages, or a file of preference pairs."""

    stages: tuple[str, ...] = ()
    """Rejection stages that come before; outputs that they did not keep are read too."""
    path: str = ""
    """A file of pairs: {prompt or messages, chosen, rejected}, in any of the forms of docs/r1.md; or hub:owner/name."""

    @model_validator(mode="after")
    def _one(self) -> Preferences:
        if bool(self.stages) == bool(self.path):
            raise ValueError("name rejection stages or a path, one of the two")
        return self


class RewardModelStage(_Stage):
    """A model with a scalar head that scores responses (DeepSeek-R1, section 2.3.4)."""

    kind: Literal["reward_model"]
    start_from: str
    """A stage, a model folder, an embedded model or a hub name."""
    data: Preferences
    objective: Literal["pairwise", "pointwise"] = "pairwise"
    """`pairwise`: which of two is better (Bradley-Terry, helpfulness); `pointwise`: safe or not (harmlessness)."""
    reads: Literal["summary", "response"] = "summary"
    """What of a response is scored: the final summary alone, or everything."""
    judgements: Count = 4
    """How often each pair is judged, with sides swapped at random; a rule's scores need no more than one."""
    margin: Annotated[float, Field(ge=0)] = 0.2
    """Pairs whose mean scores, from 0 to 1, differ by no more are left out (the paper: by 1 of 10)."""
    pairs_per_problem: Count = 4
    """At most so many pairs of one prompt."""
    judge: Judge | None = None
    """Scores the responses; without one the verdicts of the rejection stages, or the order of a file's pairs, do."""
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """This share of the prompts, by a hash, is kept for measuring accuracy."""
    template: Template = "chat"
    """How a question becomes a prompt."""
    epochs: Count = 1
    """Passes over the pairs."""
    batch_size: Count = 64
    """Pairs, or responses, of an optimizer step."""
    optimizer: Optimizer
    checkpoint_every: Count = 100
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _judged(self) -> RewardModelStage:
        if self.judge and self.objective == "pointwise":
            raise ValueError("a judge compares two responses; a pointwise model is trained on verdicts or a file")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.start_from, *self.rows_of, *_judges(self.judge))

    @property
    def rows_of(self) -> tuple[str, ...]:
        return self.data.stages

    @property
    def files(self) -> tuple[str, ...]:
        return (self.data.path,) if self.data.path else ()


class EvaluateStage(_Stage):
    """Models side by side on the same held-out problems."""

    kind: Literal["evaluate"]
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Stages or models elsewhere."""
    problems: FinalProblems = BenchmarkProblems()
    template: Template = "chat"
    """How a question becomes a prompt."""
    sampling: Sampling = Sampling()
    samples: Count = 4
    """Completions a problem."""
    budgets: tuple[Count, ...] = (24, 48, 96, 160, 256)
    """Accuracy is also given for completions cut at these many tokens."""
    judge: Judge | None = None
    """What decides on problems whose verifier is `judge`."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*self.models, *_judges(self.judge))

    @property
    def problem_sets(self) -> tuple[Problems | Dataset, ...]:
        return (self.problems,)


class ReleaseStage(_Stage):
    """Each model as a folder to hand out: weights, tokenizer, template, model card, licences."""

    kind: Literal["release"]
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Stages of this recipe."""
    evaluations: tuple[str, ...] = ()
    """Evaluate stages whose figures the cards show."""
    licence: str = "mit"
    """The licence of the new weights, as an SPDX identifier in lower case."""
    data_licences: dict[str, str] = {}
    """The licence of each data set that was learned from."""
    limits: str = ""
    """What the models cannot do, for the cards."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*self.models, *self.evaluations)


Stage = Annotated[
    SftStage | RlStage | RejectionStage | RewardModelStage | EvaluateStage | ReleaseStage, Field(discriminator="kind")
]


class Claim(Strict):
    """A statement of the paper about a figure of one model against another's, decided by intervals."""

    text: str
    """The claim in words."""
    figure: str
    """A figure of `summary.json`, e.g. pass_at_1."""
    of: str
    """A model of the evaluations."""
    than: str
    """The model that it is compared with; `base` is what the recipe starts from."""
    expect: Literal["higher", "lower", "not lower", "not higher"]
    """What the claim says; `not lower` and `not higher` within `margin`."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """How much worse still counts as equal."""
    no_more_compute: bool = False
    """It holds only if the training of `of` took no more arithmetic than that of `than`."""


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
    claim: tuple[Claim, ...] = ()
    """What the paper claims, to be decided by this run's figures."""
    preset: str = ""
    """Which of the recipe's presets was applied; `--set preset=NAME`."""

    @model_validator(mode="after")
    def _graph(self) -> Recipe:
        names = [stage.name for stage in self.stage]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two stages are named {twice!r}")
        for index, stage in enumerate(self.stage):
            for source in stage.inputs:
                if source == stage.name or source in names[index + 1 :]:
                    raise ValueError(f"stage {stage.name!r} needs {source!r}, which does not come before it")
                _check_input(stage, source, {earlier.name: earlier.kind for earlier in self.stage[:index]})
        measured = {
            "base",
            *(model for stage in self.stage if isinstance(stage, EvaluateStage) for model in stage.models),
        }
        for claim in self.claim:
            if unknown := {claim.of.rpartition(":")[2], claim.than.rpartition(":")[2]} - measured:
                raise ValueError(f"claim {claim.text!r}: no evaluate stage measures {sorted(unknown)[0]!r}")
        return self


def _check_input(stage: Stage, source: str, kinds: dict[str, str]) -> None:
    """Refuse an input of the wrong kind. `kinds` holds the stages before; a name that is not there is a model."""
    kind = kinds.get(source)
    figures_of = stage.evaluations if isinstance(stage, ReleaseStage) else ()
    if source in stage.rows_of and kind != "rejection":
        raise ValueError(f"stage {stage.name!r} takes rows of {source!r}, which is no rejection stage")
    if source in stage.rewarders and kind not in ("reward_model", None):
        raise ValueError(f"stage {stage.name!r} is rewarded by {source!r}, which is no reward model")
    if source in figures_of and kind != "evaluate":
        raise ValueError(f"stage {stage.name!r} takes figures of {source!r}, which is no evaluate stage")
    # What is read for something else may stand among the inputs once more, as a model.
    others = [*stage.rows_of, *stage.rewarders, *figures_of]
    if stage.inputs.count(source) > others.count(source) and kind not in ("sft", "rl", None):
        raise ValueError(f"stage {stage.name!r} needs a language model, but {source!r} makes none")


class Study(Strict):
    """A recipe carried out with several seeds, and its claims decided by all of them together."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    summary: str = ""
    """One sentence on what the study shows."""
    recipe: str
    """The recipe, by name or path."""
    seeds: Annotated[tuple[int, ...], Field(min_length=2)]
    """One run each, in the folder `seed-N`."""


def shipped_recipes() -> list[str]:
    folder = resources.files("hone") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str, settings: tuple[str, ...] = ()) -> Recipe:
    """Read a shipped recipe or a TOML file and apply `key=value` settings, e.g. `seed=1` or `r1_zero.steps=10`.

    A recipe may have presets, tables `[presets.NAME]` of such settings: `preset=NAME` applies one, before the others.
    """
    raw = _read(name)
    if "seeds" in raw:
        raise HoneError(f"recipe {name} is a study of several runs of {raw.get('recipe')}: name that recipe here")
    presets = raw.pop("presets", {})
    chosen = [setting.partition("=")[2] for setting in settings if setting.startswith("preset=")]
    for preset in chosen:
        if preset not in presets:
            known = f"it has {', '.join(presets)}" if presets else "it has none"
            raise HoneError(f"recipe {name} has no preset {preset!r}: {known}")
        for key, value in presets[preset].items():
            _set(raw, key, value, f"recipe {name}, preset {preset}, {key}")
    for setting in settings:
        _apply(raw, setting)
    return parse_recipe(raw, f"recipe {name}")


def load_study(name: str, settings: tuple[str, ...] = ()) -> tuple[Study, list[Recipe]] | None:
    """Read a study with its recipes, one a seed, `settings` applied to each; None where `name` is a recipe."""
    raw = _read(name)
    if "seeds" not in raw:
        return None
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        raise HoneError(f"study {name}: {_explain(error, raw)}") from error
    return study, [load_recipe(study.recipe, (*settings, f"seed={seed}")) for seed in study.seeds]


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
    _set(raw, key, value, f"--set {setting}")


def _set(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set `KEY` or `STAGE.KEY...` in a recipe's tables."""
    stages = {stage.get("name"): stage for stage in raw.get("stage", [])}
    first, *rest = key.split(".")
    if not rest:
        raw[first] = value
        return
    if first not in stages:
        raise HoneError(f"{where}: no stage {first!r}{_closest(first, stages)}")
    table = stages[first]
    for part in rest[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise HoneError(f"{where}: {part} is not a table")
    table[rest[-1]] = value


# What pydantic adds to a place: which kind it took it for.
_STAGE_TAGS = ("sft", "rl", "rejection", "reward_model", "evaluate", "release")
_TAGS = (*_STAGE_TAGS, "generated", "dataset", "corpus", "rows", "traces")


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
