"""The parts of the GRPO loop, on groups written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hone.config import RlStage, parse_recipe
from hone.engine.local.engine import LocalEngine
from hone.engine.local.trainer import Trainer
from hone.models.folders import find_model
from hone.stages import rl
from hone.stages.context import StageContext, learning_rate
from hone.types import Group, Message, Problem, Rollout, RunError, Score, ScoredGroup, Verdict

RIGHT, WRONG = "<think> so </think> <answer> 2 + 3 </answer>", "<think> so </think> <answer> 3 - 2 </answer>"


def stage(**settings: object) -> RlStage:
    table = {
        "name": "zero", "kind": "rl", "start_from": "base-tiny", "steps": 4, "problems_per_step": 2, "group_size": 2,
        "problems": {"count": 8}, "sampling": {"max_tokens": 10}, "optimizer": {"learning_rate": 1e-3}, **settings,
    }  # fmt: skip
    made = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(made, RlStage)
    return made


def context(folder: Path, seed: int = 0) -> StageContext:
    return StageContext(name="zero", folder=folder, seed=seed, models={}, console=Console(quiet=True))


def problem() -> Problem:
    message = Message(role="user", content="use 2 3 make 5")
    return Problem(
        id="countdown/2-3=5/en", task="countdown", messages=(message,), answer="2 + 3", verifier="expression"
    )


def rollout(text: str, length: int = 4, finish_reason: str = "stop") -> Rollout:
    return Rollout(
        prompt_ids=np.array([2, 3]),
        completion_ids=np.arange(4, 4 + length),
        sampler_logprobs=np.full(length, -1.0, np.float32),
        text=text,
        finish_reason=finish_reason,  # type: ignore[arg-type]
        policy_version=0,
    )


def scored(*texts: str, settings: RlStage | None = None, cut: tuple[int, ...] = ()) -> ScoredGroup:
    rollouts = tuple(rollout(text, 4 + n, "length" if n in cut else "stop") for n, text in enumerate(texts))
    (group,) = rl._score([Group(problem=problem(), rollouts=rollouts)], settings or stage())
    return group


def test_a_group_is_scored_and_compared_with_itself() -> None:
    group = scored(RIGHT, WRONG)
    assert [score.reward for score in group.scores] == [2.0, 1.0]
    assert [output.advantage for output in rl._outputs(group, stage())] == [1.0, -1.0]


def test_an_overlong_output_is_kept_penalised_or_masked() -> None:
    penalised = scored(RIGHT, RIGHT, settings=stage(overlong="penalise"), cut=(1,))
    assert [score.reward for score in penalised.scores] == [2.0, 1.0]
    assert penalised.scores[1].parts["overlong"] == -1.0
    kept = rl._outputs(scored(RIGHT, WRONG, cut=(1,)), stage())
    assert [output.scorable for output in kept] == [True, True]
    masked = rl._outputs(scored(RIGHT, WRONG, WRONG, cut=(1,)), stage(overlong="mask"))
    assert [(output.scorable, output.advantage) for output in masked] == [(True, 1.0), (False, 0.0), (True, -1.0)]


def test_a_step_is_split_at_random_into_equal_mini_batches() -> None:
    outputs = [rl.Output(rollout(str(n)), 1.0, True) for n in range(8)]
    split = list(rl._mini_batches(outputs, stage(updates_per_step=4), np.random.default_rng(0)))
    assert [len(part) for part in split] == [2, 2, 2, 2]
    texts = [output.rollout.text for part in split for output in part]
    assert sorted(texts) == [str(n) for n in range(8)]
    assert texts != sorted(texts)


@pytest.fixture
def engine() -> LocalEngine:
    return LocalEngine.open(find_model("base-tiny"), trainer=lambda model: Trainer(model))


def test_outputs_without_signal_are_left_out_but_still_count_in_the_average(engine: LocalEngine) -> None:
    outputs = [rl.Output(rollout("", 4), 1.0, True), rl.Output(rollout("", 5), 0.0, True)]
    outputs.append(rl.Output(rollout("", 6), 0.0, False))  # not scorable: it does not count
    batch = rl._pack(engine, outputs, stage())
    assert batch.num_loss_tokens == 4
    assert batch.micro_batches[0].weights.tolist() == pytest.approx([1 / (2 * 4)] * 4)
    by_token = rl._pack(engine, outputs, stage(aggregation="token"))
    assert by_token.micro_batches[0].weights.tolist() == pytest.approx([1 / 9] * 4)


def test_with_a_kl_penalty_they_stay_and_the_reference_is_the_policy_that_was_kept(engine: LocalEngine) -> None:
    engine.keep_reference()
    outputs = [rl.Output(rollout("", 4), 1.0, True), rl.Output(rollout("", 5), 0.0, True)]
    batch = rl._pack(engine, outputs, stage(kl_coef=0.1))
    assert batch.num_loss_tokens == 9
    loss = rl.GrpoLoss(0.2, 0.2, 0.1)
    assert engine.forward_backward(batch, loss)["policy/kl"] == pytest.approx(0, abs=1e-6)
    engine.optim_step(1e-2)
    moved = rl._pack(engine, outputs, stage(kl_coef=0.1))
    assert engine.forward_backward(moved, loss)["policy/kl"] > 1e-4


def test_groups_without_signal_are_replaced_when_the_recipe_says_so(engine: LocalEngine, tmp_path: Path) -> None:
    settings = stage(resample=2)
    questions = rl._Questions(settings, context(tmp_path))
    flat, telling = scored(WRONG, WRONG), scored(RIGHT, WRONG)
    groups = rl._resample([flat, telling], engine, questions, settings, context(tmp_path), 0)
    assert groups[0] is not flat
    assert groups[1] is telling
    assert rl._resample([flat], engine, questions, stage(), context(tmp_path), 0) == [flat]


def test_problems_come_in_shuffled_epochs_that_need_no_memory(tmp_path: Path) -> None:
    questions = rl._Questions(stage(), context(tmp_path))
    epoch = [problem.id for step in range(4) for problem in questions.of_step(step)]
    assert len(set(epoch)) == 8
    following = [problem.id for step in range(4, 8) for problem in questions.of_step(step)]
    assert set(following) == set(epoch)
    assert following != epoch
    assert [p.id for p in rl._Questions(stage(), context(tmp_path)).of_step(5)] == following[2:4]


def test_too_many_unscorable_verdicts_stop_the_run_and_say_why() -> None:
    right = Score(reward=1.0, parts={}, verdict=Verdict.RIGHT)
    whys = ["took longer than 2 s", "took longer than 2 s", "cannot judge"]
    lost = [Score(reward=0.0, parts={}, verdict=Verdict.UNSCORABLE, why=why) for why in whys]

    def group(*scores: Score) -> list[ScoredGroup]:
        return [ScoredGroup(problem=problem(), rollouts=tuple(rollout("") for _ in scores), scores=scores)]

    rl._check_scorable(group(*[right] * 19, lost[0]), stage(), 1)  # 5%, which is allowed
    wanted = r"step 3: 15% of the verdicts are unscorable.*5%; 2 of 3 because: took longer than 2 s"
    with pytest.raises(RunError, match=wanted):
        rl._check_scorable(group(*[right] * 17, *lost), stage(), 3)


def test_an_unscorable_output_is_masked() -> None:
    scores = tuple(
        Score(reward=reward, parts={}, verdict=verdict)
        for reward, verdict in ((2.0, Verdict.RIGHT), (0.0, Verdict.UNSCORABLE), (0.0, Verdict.WRONG))
    )
    group = ScoredGroup(problem=problem(), rollouts=tuple(rollout("") for _ in scores), scores=scores)
    found = [(output.scorable, output.advantage) for output in rl._outputs(group, stage())]
    assert found == [(True, 1.0), (False, 0.0), (True, -1.0)]


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    optimizer = stage(optimizer={"learning_rate": 1.0, "warmup_steps": 2, "final_share": 0.2}).optimizer
    rates = [learning_rate(optimizer, update, 10) for update in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.6, 0.2])
