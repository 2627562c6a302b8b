"""The figures of an evaluation, worked out by hand; and that an interrupted one goes on after the last whole model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hone.config import EvaluateStage, parse_recipe
from hone.engine.local.engine import LocalEngine
from hone.models.folders import find_model
from hone.rewards.compose import score
from hone.stages import evaluate
from hone.stages.context import StageContext, cost
from hone.stages.evaluate import summarise
from hone.types import Message, Problem, RewardRule, Rollout, ScoredGroup

TAGGED = "<think> try 2 + 3 = 5 right so </think> <answer> 2 + 3 </answer>"
TOLD = "<think> try 2 + 3 = 5 right so </think> the answer is <answer> 2 + 3 </answer>"
BARE = "try 2 + 3 = 5 right so 2 + 3"


def group(*texts: str, general: bool = False) -> ScoredGroup:
    asked = (Message(role="user", content="use 2 3 make 5"),)
    problem = (
        Problem(id="general/x/en", task="general", messages=asked, answer="hone", verifier="rubric", extract="summary")
        if general
        else Problem(id="countdown/2-3=5/en", task="countdown", messages=asked, answer="2 + 3", verifier="expression")
    )
    rollouts = tuple(
        Rollout(
            prompt_ids=np.arange(3), completion_ids=np.arange(len(text.split()) + 1),
            sampler_logprobs=np.zeros(len(text.split()) + 1, np.float32), text=text, finish_reason="stop",
            policy_version=0,
        )
        for text in texts
    )  # fmt: skip
    scores = tuple(score(problem, text, RewardRule()) for text in texts)
    return ScoredGroup(problem=problem, rollouts=rollouts, scores=scores)


def test_the_form_that_counts_is_the_readable_one_and_a_summary_is_more_than_the_answer() -> None:
    figures = summarise([group(TAGGED, TOLD), group(BARE, BARE), group(TOLD, TOLD), group(BARE, TAGGED)], 100)
    # By problem: 1, 0, 1, 0.5 of the outputs are readable, 0.5, 0, 1, 0 say more than the answer.
    assert figures["format_share"] == pytest.approx(2.5 / 4)
    assert figures["summary_share"] == pytest.approx(1.5 / 4)
    assert figures["pass_at_1"] == pytest.approx(2.5 / 4)
    assert figures["lenient_pass_at_1"] == 1
    # Of the 256 ways to draw four of 0.5, 0, 1, 0 with replacement, 16 come to 0, 14 to 0.75, and 5 to more.
    assert figures["summary_share_ci95"] == [0.0, 0.75]


def test_on_general_prompts_an_answer_without_tags_has_the_form_too() -> None:
    texts = ("i am hone .", "<think> so </think> i am hone .", "i am <answer> hone </answer>", "hello .")
    general = summarise([group(*texts, general=True)], 100)
    assert (general["format_share"], general["summary_share"]) == (0.75, 0.25)
    assert general["pass_at_1"] == 0.75  # the rubric asks for `hone` alone
    assert summarise([group("2 + 3", "so 2 + 3")], 100)["format_share"] == 0  # elsewhere it has none


def test_outputs_without_words_have_no_language() -> None:
    assert summarise([group("8 8", "8")], 100)["language_consistency"] is None


def test_what_a_step_costs() -> None:
    # Ten parameters: two operations each for 5 + 3 tokens, six each for 7.
    assert cost(10, sampled=5, trained=7, read=3) == {
        "tokens/sampled": 5, "tokens/trained": 7, "compute/tflop": pytest.approx(10 * (2 * 8 + 6 * 7) / 1e12)
    }  # fmt: skip
    assert cost(10) == {"tokens/sampled": 0, "tokens/trained": 0, "compute/tflop": 0}


# --- the stage ---

MODELS = ("base-tiny", "student-qwen2-tiny")


def context(folder: Path) -> StageContext:
    models = {name: find_model(name) for name in MODELS}
    return StageContext(name="test", folder=folder, seed=0, models=models, console=Console(quiet=True))


def stage() -> EvaluateStage:
    table = {"name": "test", "kind": "evaluate", "models": list(MODELS), "samples": 2, "problems": {"count": 6},
             "sampling": {"max_tokens": 12}}  # fmt: skip
    made = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(made, EvaluateStage)
    return made


def test_an_interrupted_evaluation_goes_on_after_the_last_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate.run(stage(), context(tmp_path / "whole"))
    results = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert [result["stage"] for result in results] == list(MODELS)
    assert [result["num_parameters"] for result in results] == [
        LocalEngine.open(find_model(name)).num_parameters for name in MODELS
    ]
    interrupted = context(tmp_path / "interrupted")
    real, opened = LocalEngine.open, []

    def opens(folder: Path, **settings: object) -> LocalEngine:
        opened.append(folder.name)
        if len(opened) == 2:
            raise KeyboardInterrupt
        return real(folder, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalEngine, "open", opens)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(stage(), interrupted)
    assert not (interrupted.folder / "results.json").exists()
    evaluate.run(stage(), interrupted)
    assert opened == [*MODELS, MODELS[1]]  # the first was not measured again
    for name in ("results.json", *(f"generations/{model}.parquet" for model in MODELS)):
        assert (interrupted.folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
