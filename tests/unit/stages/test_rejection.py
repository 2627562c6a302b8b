"""Rejection sampling: what is kept and why not, where rows come from, and learning from them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from hone.config import Filters, RejectionStage, SftStage, parse_recipe
from hone.engine.local.engine import LocalEngine
from hone.models.folders import find_model
from hone.rewards.readability import has_summary
from hone.stages import rejection, sft
from hone.stages.context import StageContext
from hone.stages.evaluate import check_scorable, sample_groups
from hone.types import HoneError, Message, Problem, Prompt, Rollout, RunError, Score, ScoredGroup, Verdict

RIGHT = "<think> try 2 + 3 = 5 right so </think> <answer> 2 + 3 </answer>"
PROBLEM = Problem(
    id="countdown/2-3=5/en", task="countdown", messages=(Message(role="user", content="use 2 3 make 5"),),
    answer="2 + 3", verifier="expression",
)  # fmt: skip


def stages(**settings: object) -> tuple[RejectionStage, SftStage]:
    tables = [
        {"name": "collect", "kind": "rejection", "start_from": "base-tiny", "problems": {"count": 20}, "samples": 4,
         "sampling": {"max_tokens": 60}, **settings},
        {"name": "cold", "kind": "sft", "start_from": "base-tiny", "data": {"stages": ["collect"]}, "batch_size": 4,
         "epochs": 4, "optimizer": {"learning_rate": 1e-3}},
    ]  # fmt: skip
    first, second = parse_recipe({"name": "test", "stage": tables}, "test").stage
    assert isinstance(first, RejectionStage)
    assert isinstance(second, SftStage)
    return first, second


def context(run: Path, name: str) -> StageContext:
    models = {"base-tiny": find_model("base-tiny")}
    return StageContext(name=name, folder=run / name, seed=0, models=models, console=Console(quiet=True))


def rollout(text: str, finish_reason: str = "stop") -> Rollout:
    return Rollout(
        prompt_ids=np.array([2]), completion_ids=np.array([3]), sampler_logprobs=np.zeros(1, np.float32), text=text,
        finish_reason=finish_reason, policy_version=0,  # type: ignore[arg-type]
    )  # fmt: skip


def scored(verdict: Verdict = Verdict.RIGHT) -> Score:
    return Score(reward=1.0, parts={}, verdict=verdict)


@pytest.mark.parametrize(
    ("text", "filters", "reason"),
    [
        (RIGHT, {}, ""),
        ("try right so <answer> 2 + 3 </answer>", {}, "format"),
        ("try right so <answer> 2 + 3 </answer>", {"format": "any"}, ""),
        ("so it is </think> 2 + 3", {"format": "tolerant"}, ""),
        (RIGHT.replace("try", "试"), {}, "language"),
        (RIGHT.replace("try", "试"), {"min_language": 0.5}, ""),
        ("<think> 2 + 3 = 5. </think> <answer> 2 + 3 </answer>", {}, ""),  # without words it mixes no languages
        (RIGHT.replace("right", "right " + "try 2 + 3 = 6 high " * 4), {}, "repetition"),
        (
            RIGHT.replace("right", "right " + "try again " * 30),
            {"max_repetition": 1.0, "max_paragraph": 60},
            "paragraph",
        ),
        (RIGHT.replace("right", "right\n```\nx\n```\n"), {}, "code"),
        (RIGHT.replace("right", "right\n```\nx\n```\n"), {"code_blocks": True}, ""),
        (RIGHT + " so so so so so so so so so so" * 12, {"max_repetition": 1.0, "format": "any"}, "loop"),
    ],
)
def test_the_first_thing_against_an_output_is_named(text: str, filters: dict[str, object], reason: str) -> None:
    assert rejection.rejected_by(PROBLEM, rollout(text), scored(), Filters.model_validate(filters)) == reason


def test_what_is_not_right_or_was_cut_is_never_kept() -> None:
    wrong, unscorable = scored(Verdict.WRONG), scored(Verdict.UNSCORABLE)
    assert rejection.rejected_by(PROBLEM, rollout(RIGHT), wrong, Filters()) == "wrong"
    assert rejection.rejected_by(PROBLEM, rollout(RIGHT), unscorable, Filters()) == "unscorable"
    assert rejection.rejected_by(PROBLEM, rollout(RIGHT, "length"), scored(), Filters()) == "cut"


def test_at_most_so_many_different_outputs_of_a_problem_are_kept() -> None:
    texts = [RIGHT, RIGHT, RIGHT.replace("try", "try try"), RIGHT.replace("so", "so so")]
    group = ScoredGroup(problem=PROBLEM, rollouts=tuple(map(rollout, texts)), scores=(scored(),) * 4)
    rows = rejection._judge_group(group, set(), stages(keep=2)[0])
    assert [row["rejected_by"] for row in rows] == ["", "duplicate", "", "enough"]


def test_rows_say_where_they_come_from_and_an_interrupted_stage_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejection, "CHUNK", 8)
    stage, _ = stages()
    rejection.run(stage, context(tmp_path / "whole", "collect"))
    table = pq.read_table(tmp_path / "whole" / "collect" / "rows.parquet")
    assert len(table) == 20 * 4
    row = table.to_pylist()[0]
    assert len(row["policy"]) >= 8
    assert row["seed"] == context(tmp_path, "collect").draw_seed("sample", "00-00000000")
    funnel = json.loads((tmp_path / "whole" / "collect" / "funnel.json").read_text())
    assert funnel["kept"] + sum(funnel["rejected_by"].values()) == funnel["outputs"] == 80
    assert funnel["kept"] == len(rejection.kept_rows(tmp_path / "whole" / "collect" / "rows.parquet")) > 0

    interrupted = context(tmp_path / "interrupted", "collect")
    sample = rejection._sample_chunk
    monkeypatch.setattr(rejection, "_sample_chunk", stop_after(sample, 2))
    with pytest.raises(KeyboardInterrupt):
        rejection.run(stage, interrupted)
    monkeypatch.setattr(rejection, "_sample_chunk", stop_after(sample, 1))  # one chunk is left
    rejection.run(stage, interrupted)
    assert pq.read_table(tmp_path / "interrupted" / "collect" / "rows.parquet").equals(table)


def test_killed_in_the_second_round_it_ends_with_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejection, "CHUNK", 6)
    stage, _ = stages(rounds=2, problems={"count": 12}, summary={"en": "the answer is", "zh": "答案 是"})
    whole, interrupted = context(tmp_path / "whole", "collect"), context(tmp_path / "interrupted", "collect")
    rejection.run(stage, whole)
    parts = sorted(file.stem for file in (whole.folder / "parts").iterdir())
    assert parts == ["00-00000000", "00-00000006", "01-00000000", "01-00000006"]
    sample = rejection._sample_chunk
    monkeypatch.setattr(rejection, "_sample_chunk", stop_after(sample, 3))
    with pytest.raises(KeyboardInterrupt):
        rejection.run(stage, interrupted)
    monkeypatch.setattr(rejection, "_sample_chunk", stop_after(sample, 1))
    rejection.run(stage, interrupted)
    for name in ("rows.parquet", "funnel.json"):
        assert (interrupted.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_further_round_asks_only_what_still_wants_outputs(tmp_path: Path) -> None:
    stage, _ = stages(rounds=3, keep=2, problems={"count": 24})
    rejection.run(stage, place := context(tmp_path, "collect"))
    rounds = [pq.read_table(file).to_pylist() for file in sorted((place.folder / "parts").iterdir())]
    assert len(rounds) == 3
    kept: dict[str, list[str]] = defaultdict(list)
    wanting = {row["problem_id"] for row in rounds[0]}
    assert len(wanting) == 24
    for rows in rounds:
        assert Counter(row["problem_id"] for row in rows) == dict.fromkeys(wanting, 4)
        for row in rows:
            if not row["rejected_by"]:
                kept[row["problem_id"]].append(row["completion"])
        wanting = {name for name in wanting if len(kept[name]) < 2}
    assert 0 < len(wanting) < len({row["problem_id"] for row in rounds[1]}) < 24  # each round has served some
    assert len({row["seed"] for rows in rounds for row in rows}) == 3  # and draws anew
    assert all(len(texts) == len(set(texts)) <= 2 for texts in kept.values())
    table = pq.read_table(place.folder / "rows.parquet").to_pylist()
    without = [{name: value for name, value in row.items() if name != "right_share"} for row in table]
    assert without == [row for rows in rounds for row in rows]
    right = Counter(row["problem_id"] for row in table if row["verdict"] == "right")
    asked = Counter(row["problem_id"] for row in table)
    assert set(asked.values()) == {4, 8, 12}
    for row in table:
        assert row["right_share"] == pytest.approx(right[row["problem_id"]] / asked[row["problem_id"]])


def test_what_earlier_rounds_kept_counts(tmp_path: Path) -> None:
    texts = [RIGHT, RIGHT.replace("try", "try try"), RIGHT.replace("so", "so so")]
    group = ScoredGroup(problem=PROBLEM, rollouts=tuple(map(rollout, texts)), scores=(scored(),) * 3)
    rows = rejection._judge_group(group, {RIGHT}, stages(keep=2)[0])
    assert [row["rejected_by"] for row in rows] == ["duplicate", "", "enough"]


SUMMARY = {"en": "the answer is", "zh": "答案 是"}
TOLD = "<think> try 2 + 3 = 5 right so </think> the answer is <answer> 2 + 3 </answer>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RIGHT, TOLD),
        (TOLD, TOLD),  # once
        (RIGHT.replace(" <answer>", "\n\n<answer>"), TOLD),
        ("so </think> <answer> 5 </answer>", "so </think> the answer is <answer> 5 </answer>"),
        ("<think> so </think> it is <answer> 5 </answer>", "<think> so </think> it is <answer> 5 </answer>"),
        ("<think> so </think> <answer> 5 </answer> yes", "<think> so </think> <answer> 5 </answer> yes"),
        ("<think> so </think> it is 5", "<think> so </think> it is 5"),  # it is a summary
        ("so <answer> 5 </answer>", "so <answer> 5 </answer>"),  # nothing tells thinking from answer
        ("hello .", "hello ."),
        ("", ""),
    ],
)
def test_a_sentence_for_the_reader_is_put_before_an_answer_that_has_none(text: str, expected: str) -> None:
    assert rejection.add_summary(text, SUMMARY, "en") == expected
    assert rejection.add_summary(expected, SUMMARY, "en") == expected
    assert rejection.add_summary(text, {"zh": SUMMARY["zh"]}, "en") == text
    assert rejection.add_summary(text, {}, "en") == text


def test_only_what_is_kept_is_edited_and_an_edited_text_may_be_a_duplicate() -> None:
    texts = [RIGHT, TOLD, RIGHT.replace("try", "试"), RIGHT.replace("so", "so so")]
    group = ScoredGroup(problem=PROBLEM, rollouts=tuple(map(rollout, texts)), scores=(scored(),) * 4)
    rows = rejection._judge_group(group, set(), stages(summary=SUMMARY, filters={"format": "tolerant"})[0])
    assert [row["rejected_by"] for row in rows] == ["", "duplicate", "language", ""]
    assert [row["edited"] for row in rows] == [True, False, False, True]
    assert [row["completion"] for row in rows] == [TOLD, TOLD, texts[2], TOLD.replace("so", "so so")]


def test_rows_hold_what_the_verifier_said_an_output_is_worth(tmp_path: Path) -> None:
    worth = (1.0, 0.5, -1.0)
    scores = tuple(
        Score(reward=0, parts={}, verdict=Verdict.RIGHT if c == 1 else Verdict.WRONG, credit=c) for c in worth
    )
    group = ScoredGroup(problem=PROBLEM, rollouts=tuple(map(rollout, [RIGHT] * 3)), scores=scores)
    rows = rejection._judge_group(group, set(), stages()[0])
    assert [(row["credit"], row["rejected_by"]) for row in rows] == [(1.0, ""), (0.5, "wrong"), (-1.0, "wrong")]
    stage, _ = stages(problems={"count": 8}, summary=SUMMARY)
    rejection.run(stage, place := context(tmp_path, "collect"))
    table = pq.read_table(place.folder / "rows.parquet").to_pylist()
    assert all(row["credit"] == (row["verdict"] == "right") for row in table)
    kept = [row for row in table if not row["rejected_by"]]
    assert kept
    assert all(has_summary(row["completion"]) and row["edited"] for row in kept)
    assert all(
        row["edited"] <= (not row["rejected_by"]) or row["rejected_by"] in ("duplicate", "enough") for row in table
    )
    funnel = json.loads((place.folder / "funnel.json").read_text())
    sampled = sum(row["num_tokens"] for row in table)
    size = LocalEngine.open(find_model("base-tiny")).num_parameters
    assert (funnel["tokens/sampled"], funnel["tokens/trained"]) == (sampled, 0)
    assert funnel["compute/tflop"] == pytest.approx(2 * size * sampled / 1e12)


SHOTS = [
    {"language": "en", "prompt": "use 1 4 make 5",
     "completion": "<think> try 1 + 4 = 5 right so </think> <answer> 1 + 4 </answer>"},
    {"language": "zh", "prompt": "用 1 4 得 5",
     "completion": "<think> 试 1 + 4 = 5 对 所以 </think> <answer> 1 + 4 </answer>"},
    {"language": "en", "prompt": "use 1 2 make 2", "completion": "<think> so </think> <answer> 1 * 2 </answer>"},
]  # fmt: skip


def test_a_few_shot_prompt_holds_the_worked_examples_of_its_language_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine.open(find_model("base-tiny"))
    stage, _ = stages(shots=SHOTS, problems={"count": 8}, samples=1)
    in_chinese = Problem(
        id="countdown/2-3=5/zh", task="countdown", messages=(Message(role="user", content="用 2 3 得 5"),),
        answer="2 + 3", verifier="expression", language="zh",
    )  # fmt: skip
    groups = sample_groups(
        engine, [PROBLEM, in_chinese], stage.sampling, template="chat", samples=1, seed=0, shots=stage.shots
    )
    # As in the documents of the base's corpus: whole turns, one after the other, each with its end token.
    english = (
        "User: use 1 4 make 5 Assistant: <think> try 1 + 4 = 5 right so </think> <answer> 1 + 4 </answer> <|end|> "
        "User: use 1 2 make 2 Assistant: <think> so </think> <answer> 1 * 2 </answer> <|end|> "
        "User: use 2 3 make 5 Assistant:"
    )
    chinese = (
        "User: 用 1 4 得 5 Assistant: <think> 试 1 + 4 = 5 对 所以 </think> <answer> 1 + 4 </answer> <|end|> "
        "User: 用 2 3 得 5 Assistant:"
    )
    for group, text in zip(groups, (english, chinese), strict=True):
        assert group.rollouts[0].prompt_ids.tolist() == engine.tokenizer.encode(text)
        assert engine.tokenizer.unknown_words(text) == []

    asked: list[Prompt] = []
    sample = LocalEngine.sample

    def watching(self: LocalEngine, prompts: list[Prompt], *arguments: object, **settings: object) -> object:
        asked.extend(prompts)
        return sample(self, prompts, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalEngine, "sample", watching)
    rejection.run(stage, place := context(tmp_path, "collect"))
    shown = {language: prompt[: prompt.rindex("User:")] for language, prompt in (("en", english), ("zh", chinese))}
    rows = pq.read_table(place.folder / "rows.parquet").to_pylist()
    assert len(asked) == len(rows) == 8
    for prompt, row in zip(asked, rows, strict=True):
        text = f"{shown[row['language']]}User: {row['prompt']} Assistant:"
        assert list(prompt.ids) == engine.tokenizer.encode(text)  # and the row holds the question alone
    assert {row["language"] for row in rows} == {"en", "zh"}


def stop_after(sample: object, count: int) -> object:
    calls: list[int] = []

    def stopping(*arguments: object) -> None:
        if len(calls) == count:
            raise KeyboardInterrupt
        calls.append(1)
        sample(*arguments)  # type: ignore[operator]

    return stopping


def test_a_model_learns_from_what_was_kept(tmp_path: Path) -> None:
    collect, cold = stages(problems={"count": 40})
    rejection.run(collect, context(tmp_path, "collect"))
    sft.run(cold, context(tmp_path, "cold"))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "cold" / "metrics.jsonl").read_text().splitlines()]
    kept = len(rejection.kept_rows(tmp_path / "collect" / "rows.parquet"))
    an_epoch = -(-kept // 4)
    assert len(losses) == 4 * an_epoch
    assert np.mean(losses[-an_epoch:]) < 0.8 * np.mean(losses[:an_epoch])


def test_every_epoch_has_every_row_once_in_another_order(tmp_path: Path) -> None:
    rows = [{"prompt": f"use {n}", "completion": str(n)} for n in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {"name": "s", "kind": "sft", "start_from": "base-tiny", "data": {"path": str(tmp_path / "rows.jsonl")},
             "batch_size": 4, "optimizer": {"learning_rate": 1e-3}}  # fmt: skip
    stage = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(stage, SftStage)
    assert stage.files == (str(tmp_path / "rows.jsonl"),)
    examples = sft._Examples(stage, context(tmp_path, "s"))
    epochs = [[row.prompt for step in range(3) for row in examples.of_step(3 * epoch + step)] for epoch in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(row["prompt"] for row in rows)
    assert epochs[0] != epochs[1]


def test_nothing_to_learn_from_and_unscorable_verdicts_stop_a_stage(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": [{"role": "user", "content": "use 1"}]}\n')
    table = {"name": "s", "kind": "sft", "start_from": "base-tiny", "data": {"path": str(tmp_path / "rows.jsonl")},
             "optimizer": {"learning_rate": 1e-3}}  # fmt: skip
    stage = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(stage, SftStage)
    with pytest.raises(HoneError, match=r"row 1: neither \{prompt, completion\} nor"):
        sft._Examples(stage, context(tmp_path, "s"))
    with pytest.raises(RunError, match="6% of the verdicts are unscorable"):
        check_scorable(["took longer than 2 s"] * 6, 100, stages()[0].max_unscorable_share, "stage collect")
