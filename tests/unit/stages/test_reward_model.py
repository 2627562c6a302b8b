"""Reward models: their scores, where their pairs come from, what is held out, and what resuming repeats."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from hone.config import RewardModelStage, parse_recipe
from hone.engine.local.reward_model import (
    Comparison,
    RewardModel,
    RewardTrainer,
    ScoringDecoder,
    pairwise_loss,
    pointwise_loss,
)
from hone.models.decoder import Decoder, DecoderConfig, ModelType
from hone.models.loading import load_model, save_model
from hone.models.tokenizer import Tokenizer, word_tokenizer
from hone.rewards.judge import Judge, NoReply
from hone.stages import pairs, reward_model
from hone.stages.context import StageContext
from hone.tasks.preferences import is_held_out, prompt_key
from hone.types import HoneError, Message, Problem

WORDS = (
    "a",
    "b",
    "c",
    "d",
    "good",
    "bad",
    "user:",
    "assistant:",
    "why",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
)
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}assistant: "


def tokenizer(special: Sequence[str] = ("<unk>", "<end>")) -> Tokenizer:
    return word_tokenizer([*WORDS, *map(str, range(60))], special=special, eos="<end>", chat_template=TEMPLATE)


def decoder(model_type: ModelType = "qwen2", *, tied: bool = False, make: type[Decoder] = Decoder) -> Decoder:
    words = tokenizer()
    model = make(
        DecoderConfig(
            model_type=model_type, vocab_size=words.vocab_size, hidden_size=16, intermediate_size=24,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4, max_position_embeddings=32,
            tie_word_embeddings=tied,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.3, generator=generator)
            if "norm" in name:
                parameter.add_(1)
    return model


def scoring(model_type: ModelType = "qwen2", **settings: Any) -> RewardModel:
    model = decoder(model_type, make=ScoringDecoder)
    assert isinstance(model, ScoringDecoder)
    return RewardModel(model, tokenizer(), **{"reads": "response", **settings})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_model(decoder(), folder)
    tokenizer().save(folder)
    return folder


def problem(prompt: str = "a why") -> Problem:
    return Problem(id="p", task="t", messages=(Message(role="user", content=prompt),))


# --- the model ---


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_transformers_gives_the_same_scores_whatever_side_it_pads(model_type: ModelType, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = scoring(model_type)
    model.save(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(theirs).__name__ == f"{model_type.capitalize()}ForSequenceClassification"
    assert theirs.config.num_labels == 1
    texts = ["a good", "", "b " * 12, "d <end> c"]
    prompt = model.tokenizer.render(problem().messages, "chat")
    sequences = [model.encode(problem().messages, text, "chat") for text in texts]
    ours = RewardModel.open(tmp_path).score(sequences)
    assert ours.std() > 0.1, "scores that are all the same would compare nothing"
    words = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for side in ("right", "left"):
        words.padding_side = side
        batch = words([f"{prompt}{text} <end>" for text in texts], padding=True, return_tensors="pt")
        assert batch["input_ids"].shape[1] == max(map(len, sequences))
        with torch.no_grad():
            found = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
        np.testing.assert_allclose(ours, found.numpy(), atol=1e-5)


def test_a_reward_model_of_transformers_can_be_read(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS) + 62, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    theirs = transformers.LlamaForSequenceClassification(config).eval()
    with torch.no_grad():
        theirs.score.weight.normal_(generator=torch.Generator().manual_seed(2))
    theirs.save_pretrained(tmp_path)
    tokenizer().save(tmp_path)
    ids = np.arange(1, 20)
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(ids)[None]).logits.item()
    model = RewardModel.open(tmp_path)
    assert model.score([ids]).tolist() == [pytest.approx(expected, abs=1e-5)]
    assert (model.reads, model.mean) == ("summary", 0.0)


def test_scores_do_not_depend_on_what_else_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    model = scoring()
    rng = np.random.default_rng(0)
    sequences = [rng.integers(2, 60, size=length) for length in rng.integers(1, 33, size=40)]
    alone = np.concatenate([model.score([ids]) for ids in sequences])
    np.testing.assert_allclose(model.score(sequences), alone, atol=1e-5)
    monkeypatch.setattr("hone.engine.local.reward_model.BATCH_TOKENS", 70)
    np.testing.assert_allclose(model.score(sequences), alone, atol=1e-5)
    assert model.score([]).shape == (0,)


@pytest.mark.parametrize("tied", [True, False])
def test_training_begins_with_a_head_of_zeros_and_without_an_output_matrix(tied: bool, tmp_path: Path) -> None:
    save_model(decoder(tied=tied), tmp_path)
    tokenizer().save(tmp_path)
    model = RewardModel.begin(tmp_path, "response")
    assert model.reward([(problem(), "good"), (problem(), "bad")], "chat").tolist() == [0.5, 0.5]
    backbone = sum(parameter.numel() for parameter in decoder(tied=True).parameters())
    assert model.num_parameters == backbone + 16
    ids = torch.arange(1, 9)[None]
    torch.testing.assert_close(model.model(ids), load_model(tmp_path)(ids), rtol=0, atol=0)
    with pytest.raises(HoneError, match=r"no score\.weight there, so it is no reward model"):
        RewardModel.open(tmp_path)


def test_a_reward_is_the_sigmoid_of_the_score_less_the_mean_and_both_are_stored(tmp_path: Path) -> None:
    cases = [(problem(), "<think> a b </think> good"), (problem("b why"), "c"), (problem(), "")]
    made = scoring(reads="summary", mean=0.25)
    made.save(tmp_path)
    model = RewardModel.open(tmp_path)
    assert (model.reads, model.mean) == ("summary", 0.25)
    scores = model.score([model.encode(one.messages, text, "chat") for one, text in cases])
    expected = [1 / (1 + math.exp(0.25 - score)) for score in scores.tolist()]
    assert model.reward(cases, "chat").tolist() == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) == 3
    again = RewardModel.begin(tmp_path, "response")  # what is trained anew has no mean yet, and reads what it is told
    assert (again.reads, again.mean) == ("response", 0.0)


def test_what_is_read_of_a_response() -> None:
    thinking = "<think> a b </think> good c"
    summary, response = scoring(reads="summary"), scoring(reads="response")
    words = summary.tokenizer
    assert (
        words.core.decode(summary.encode(problem().messages, thinking, "chat").tolist()[-3:], False) == "good c <end>"
    )
    assert summary.reward([(problem(), thinking)], "chat") == summary.reward([(problem(), "good c")], "chat")
    assert summary.reward([(problem(), "<think> a b")], "chat") == summary.reward([(problem(), "")], "chat")
    assert response.reward([(problem(), thinking)], "chat") != response.reward([(problem(), "good c")], "chat")


def test_a_response_that_is_too_long_is_cut_but_still_ends() -> None:
    model = scoring()
    prompt = len(model.encode(problem().messages, "", "chat"))
    fits = "b " * (32 - prompt)
    assert model.reward([(problem(), fits + "c d")], "chat") == model.reward([(problem(), fits)], "chat")


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"hone_reads": "everything"}, "hone_reads"), ({"hone_score_mean": "high"}, "hone_score_mean"),
     ({"hone_score_mean": math.nan}, "hone_score_mean")],
)  # fmt: skip
def test_a_damaged_config_is_refused_by_name(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    scoring().save(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, **changes}))
    with pytest.raises(HoneError, match=why):
        RewardModel.open(tmp_path)


def test_the_end_token_never_pads() -> None:
    model = scoring()
    assert (tokenizer().pad, model.tokenizer.pad) == ("<end>", "<unk>")
    lonely = tokenizer(special=("<end>",))
    with pytest.raises(HoneError, match="no special token but its end token"):
        RewardModel(model.model, lonely, reads="response")


def test_a_batch_in_small_parts_has_the_gradient_of_the_whole() -> None:
    rng = np.random.default_rng(1)

    def one() -> np.ndarray[Any, np.dtype[np.int64]]:
        return rng.integers(2, 60, size=int(rng.integers(2, 20)))

    batch = [Comparison(sequences=(one(), one()), weight=weight) for weight in (1.0, 0.5, 2.0, 1.0, 1.5)]

    def learn(micro_batch_tokens: int) -> tuple[float, list[torch.Tensor]]:
        model = scoring().model
        loss, scores = RewardTrainer(model, micro_batch_tokens=micro_batch_tokens).learn(batch, pairwise_loss)
        ahead = scores[:, 0] - scores[:, 1]
        by_hand = sum(c.weight * math.log(1 + math.exp(-d)) for c, d in zip(batch, ahead.tolist(), strict=True)) / 5
        assert loss == pytest.approx(by_hand, abs=1e-5)
        assert [score for pair in scores for score in pair] == pytest.approx(
            [score for c in batch for score in scoring().score(c.sequences)], abs=1e-5
        )
        return loss, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    whole, small = learn(10_000), learn(1)
    assert whole[0] == pytest.approx(small[0], abs=1e-6)
    for a, b in zip(whole[1], small[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert len(whole[1]) == len(list(scoring().model.parameters()))


def test_single_responses_are_learned_by_their_labels() -> None:
    batch = [
        Comparison(sequences=(np.array([3, 4]),), label=1.0, weight=2.0),
        Comparison(sequences=(np.array([5, 6, 7]),), label=0.0, weight=0.5),
    ]
    loss, scores = RewardTrainer(scoring().model).learn(batch, pointwise_loss)
    safe, unsafe = (1 / (1 + math.exp(-score)) for score in scores[:, 0].tolist())
    assert loss == pytest.approx((-2 * math.log(safe) - 0.5 * math.log(1 - unsafe)) / 2, abs=1e-5)


# --- the stage ---


def stage(**settings: Any) -> RewardModelStage:
    table = {
        "name": "rm", "kind": "reward_model", "start_from": "base", "data": {"stages": ["collect"]}, "batch_size": 4,
        "optimizer": {"learning_rate": 1e-3}, **settings,
    }  # fmt: skip
    collect = {"name": "collect", "kind": "rejection", "start_from": "base"}
    made = parse_recipe({"name": "test", "stage": [collect, table]}, "test").stage[1]
    assert isinstance(made, RewardModelStage)
    return made


def context(run: Path, base: Path) -> StageContext:
    return StageContext(name="rm", folder=run / "rm", seed=0, models={"base": base}, console=Console(quiet=True))


def output(prompt: str, completion: str, credit: float, verdict: str = "") -> dict[str, Any]:
    right = "right" if credit == 1 else "wrong"
    return {
        "problem_id": f"id of {prompt}", "language": "en", "prompt": prompt, "completion": completion,
        "verdict": verdict or right, "credit": credit, "policy": "0123abcd", "seed": 7,
    }  # fmt: skip


def write_outputs(run: Path, rows: Sequence[dict[str, Any]]) -> None:
    (run / "collect").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), run / "collect" / "rows.parquet")


def write_pairs(run: Path, count: int = 40) -> dict[str, str]:
    run.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"why {n}", "chosen": f"good {n % 7}", "rejected": f"bad {n % 5}"} for n in range(count)]
    (run / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(run / "pairs.jsonl")}


def rows_of(run: Path, name: str = "pairs") -> list[dict[str, Any]]:
    return pq.read_table(run / "rm" / f"{name}.parquet").to_pylist()  # type: ignore[no-any-return]


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "rm" / "results.json").read_text())  # type: ignore[no-any-return]


def make_rows(settings: RewardModelStage, run: Path, base: Path) -> list[dict[str, Any]]:
    return pairs.find_rows(settings, context(run, base), RewardModel.begin(base, settings.reads))


def test_pairs_are_different_outputs_whose_scores_differ_by_more_than_the_margin(tmp_path: Path, base: Path) -> None:
    outputs = [
        output("why a", "good", 1.0), output("why a", "good", 1.0), output("why a", "c", 0.75),
        output("why a", "<think> a </think> c", 0.75), output("why a", "bad", -1.0),
        output("why a", "d", 0.0, "unscorable"), output("why b", "good", 1.0), output("why b", "c", 1.0),
    ]  # fmt: skip
    write_outputs(tmp_path, outputs)
    rows = make_rows(stage(pairs_per_problem=100, margin=0.125), tmp_path, base)
    found = {(row["chosen_response"], row["rejected_response"], row["dropped_by"]) for row in rows}
    thinks = "<think> a </think> c"
    assert {(a, b) for a, b, why in found if not why} == {("good", "bad"), ("c", "bad"), (thinks, "bad")}
    # (1 + 1) / 2 and (0.75 + 1) / 2 differ by 0.125, which is no more than the margin
    at_margin = {frozenset((a, b)) for a, b, why in found if why == "margin"}
    assert at_margin == {frozenset(("good", "c")), frozenset(("good", thinks))}
    assert [{a, b} for a, b, why in found if why == "same"] == [{"c", thinks}]  # the same summary
    assert (
        len(rows) == 7
    )  # of the first prompt 4 * 3 / 2, of the second 1: the unscorable output and the double are none
    kept = next(row for row in rows if (row["chosen_response"], row["rejected_response"]) == ("good", "bad"))
    assert (kept["chosen_score"], kept["rejected_score"]) == (1.0, 0.0)
    assert kept["chosen_problem_id"] == "id of why a"
    assert (kept["chosen_source"], kept["rejected_policy"], kept["rejected_seed"]) == ("collect", "0123abcd", 7)
    assert kept["messages"] == [{"role": "user", "content": "why a"}]
    assert kept["judgements"] == []


def test_at_most_so_many_pairs_of_a_prompt_chosen_at_random(tmp_path: Path, base: Path) -> None:
    outputs = [output(f"why {p}", f"{n}", n / 10 - 1) for p in (1, 2, 3) for n in range(10)]
    write_outputs(tmp_path, outputs)
    rows = make_rows(stage(pairs_per_problem=3, margin=0.125), tmp_path, base)
    kept = [row for row in rows if not row["dropped_by"]]
    assert all(row["chosen_score"] - row["rejected_score"] > 0.125 for row in kept)
    assert [sum(row["messages"][0]["content"] == f"why {p}" for row in kept) for p in (1, 2, 3)] == [3, 3, 3]
    chosen = [{(r["chosen_response"], r["rejected_response"]) for r in kept if r["prompt_key"] == key}
              for key in {row["prompt_key"] for row in kept}]  # fmt: skip
    assert chosen[0] != chosen[1] or chosen[1] != chosen[2]


def test_held_out_prompts_are_never_trained_on(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [
        output(f"why {p}", text, credit) for p in range(60) for text, credit in (("good", 1), ("bad", 0), ("a", -1))
    ]
    write_outputs(tmp_path, outputs)
    trained: set[bytes] = set()
    learn = RewardTrainer.learn

    def watched(self: RewardTrainer, batch: Sequence[Comparison], loss: Any) -> Any:
        trained.update(ids.tobytes() for comparison in batch for ids in comparison.sequences)
        return learn(self, batch, loss)

    monkeypatch.setattr(RewardTrainer, "learn", watched)
    settings = stage(held_out_share=0.3)
    reward_model.run(settings, context(tmp_path, base))
    model = RewardModel.open(tmp_path / "rm" / "checkpoint")
    prompts = {f"why {p}": (Message(role="user", content=f"why {p}"),) for p in range(60)}
    held_out = {name for name, messages in prompts.items() if is_held_out(prompt_key(messages), 0.3)}
    assert 8 <= len(held_out) <= 28
    for name, messages in prompts.items():
        was_trained = any(model.encode(messages, text, "chat").tobytes() in trained for text in ("good", "bad", "a"))
        assert was_trained == (name not in held_out)
    found = results_of(tmp_path)
    assert found["num_pairs"] == 60 * 3
    assert (found["num_held_out"], found["num_prompts_held_out"]) == (3 * len(held_out), len(held_out))


def test_the_pairs_of_a_file_are_as_given_and_the_stored_mean_is_that_of_the_scores(tmp_path: Path, base: Path) -> None:
    settings = stage(data=write_pairs(tmp_path), margin=0.2, reads="response", epochs=2)
    reward_model.run(settings, context(tmp_path, base))
    rows = rows_of(tmp_path)
    assert {(row["chosen_score"], row["rejected_score"], row["dropped_by"]) for row in rows} == {(1.0, 0.0, "")}
    train = [row for row in rows if not row["held_out"]]
    steps = [json.loads(line) for line in (tmp_path / "rm" / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, 2 * -(-len(train) // 4) + 1))
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)  # a head of zeros
    assert steps[0]["accuracy"] == 0.5
    model = RewardModel.open(tmp_path / "rm" / "checkpoint")
    tokens = sum(len(model.encode([Message(**m) for m in row["messages"]], row[f"{side}_response"], "chat"))
                 for row in train for side in ("chosen", "rejected"))  # fmt: skip
    assert sum(step["tokens/trained"] for step in steps) == 2 * tokens
    assert sum(step["compute/tflop"] for step in steps) == pytest.approx(6 * model.num_parameters * 2 * tokens / 1e12)
    sequences = [model.encode([Message(**m) for m in row["messages"]], row[f"{side}_response"], "chat")
                 for row in train for side in ("chosen", "rejected")]  # fmt: skip
    distinct = list({ids.tobytes(): ids for ids in sequences}.values())
    assert model.mean == pytest.approx(float(model.score(distinct).mean()), abs=1e-6)
    assert model.mean == results_of(tmp_path)["score_mean"] != 0
    assert model.reads == "response"


def test_pairs_longer_than_the_model_are_left_out(tmp_path: Path, base: Path) -> None:
    write_outputs(
        tmp_path, [output("why a", "good " * 40, 1.0), output("why a", "bad", 0.0), output("why a", "c", -1.0)]
    )
    rows = make_rows(stage(), tmp_path, base)
    assert sorted(row["dropped_by"] for row in rows) == ["", "long", "long"]


# --- the judge ---

SCORED = {"good": 9, "c": 5, "bad": 2}
_SHOWN = re.compile(r"<<< (first|second) \w+\n(.*?)\n>>>", re.DOTALL)


def judged_by(monkeypatch: pytest.MonkeyPatch, reply: Callable[[str, str], str | NoReply]) -> list[tuple[str, str]]:
    """Have a judge reply to the first and the second response; return the list of what it was asked."""
    asked: list[tuple[str, str]] = []

    def ask(prompts: Sequence[str]) -> list[str | NoReply]:
        shown = [dict(_SHOWN.findall(prompt)) for prompt in prompts]
        asked.extend((texts["first"], texts["second"]) for texts in shown)
        return [reply(texts["first"], texts["second"]) for texts in shown]

    monkeypatch.setattr(pairs, "open_judge", lambda settings, context: Judge(ask))
    return asked


JUDGE = {"model": "judge", "endpoint": "http://localhost:1/v1"}


def test_a_judge_sees_each_pair_several_times_with_its_sides_swapped_and_a_bias_for_the_first_averages_out(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [output(f"why {p}", text, -1.0) for p in range(12) for text in ("bad", "<think> a </think> good")]
    write_outputs(tmp_path, outputs)
    asked = judged_by(monkeypatch, lambda first, second: f"SCORES: {SCORED[first] + 1} {SCORED[second]}")
    rows = make_rows(stage(judge=JUDGE, judgements=4), tmp_path, base)
    assert len(asked) == 12 * 4
    assert 12 <= sum(pair == ("good", "bad") for pair in asked) <= 36  # swapped at random; it sees the summary alone
    for row in rows:
        assert (row["chosen_response"], row["rejected_response"]) == ("<think> a </think> good", "bad")
        assert len(row["judgements"]) == 4
        for judgement in row["judgements"]:
            chosen, rejected = (1.0, 0.2) if judgement["first"] == "chosen" else (0.9, 0.3)
            assert (judgement["chosen"], judgement["rejected"]) == pytest.approx((chosen, rejected))
        for side in ("chosen", "rejected"):
            mean = np.mean([judgement[side] for judgement in row["judgements"]])
            assert row[f"{side}_score"] == pytest.approx(mean, abs=1e-6)
        assert row["dropped_by"] == ""
    orders = {tuple(judgement["first"] for judgement in row["judgements"]) for row in rows}
    assert len(orders) > 3


def test_a_judge_overturns_a_file_and_what_it_cannot_tell_apart_is_left_out(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pairs.jsonl").write_text(
        "".join(
            json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}) + "\n"
            for prompt, chosen, rejected in (
                ("why 1", "bad", "good"), ("why 2", "c", "a"), ("why 3", "good", "d"), ("why 4", "b", "b"),
            )
        )
    )  # fmt: skip

    def reply(first: str, second: str) -> str | NoReply:
        if "d" in (first, second):
            return NoReply("cut")
        scores = {**SCORED, "a": 4}
        return f"SCORES: {scores[first]} {scores[second]}"

    asked = judged_by(monkeypatch, reply)
    rows = make_rows(stage(data={"path": str(tmp_path / "pairs.jsonl")}, judge=JUDGE), tmp_path, base)
    found = {row["messages"][0]["content"]: row for row in rows}
    assert (found["why 1"]["chosen_response"], found["why 1"]["dropped_by"]) == ("good", "")
    assert (found["why 2"]["chosen_score"], found["why 2"]["dropped_by"]) == (pytest.approx(0.5), "margin")
    assert (found["why 3"]["chosen_score"], found["why 3"]["dropped_by"]) == (None, "unjudged")
    assert [judgement["chosen"] for judgement in found["why 3"]["judgements"]] == [None] * 4
    assert (found["why 4"]["judgements"], found["why 4"]["dropped_by"]) == ([], "same")
    assert len(asked) == 3 * 4  # of the same text twice it is not asked


def test_an_interrupted_stage_asks_its_judge_nothing_twice_and_ends_with_the_same_bits(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "CHUNK", 10)
    settings = {"judge": JUDGE, "judgements": 2, "checkpoint_every": 2, "margin": 0.1}
    for run in ("whole", "broken"):
        write_outputs(tmp_path / run, [output(f"why {p}", text, 0) for p in range(30) for text in ("good", "c", "bad")])
    asked = judged_by(monkeypatch, lambda first, second: f"SCORES: {SCORED[first]} {SCORED[second]}")
    reward_model.run(stage(**settings), context(tmp_path / "whole", base))
    num_asked = len(asked)

    asked = judged_by(monkeypatch, lambda first, second: f"SCORES: {SCORED[first]} {SCORED[second]}")
    for target, name, calls in ((pairs, "_judged", 2), (RewardTrainer, "learn", 3), (RewardTrainer, "learn", 3)):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, stopping(getattr(target, name), calls))
            with pytest.raises(KeyboardInterrupt):
                reward_model.run(stage(**settings), context(tmp_path / "broken", base))
    reward_model.run(stage(**settings), context(tmp_path / "broken", base))
    assert len(asked) == num_asked == 30 * 3 * 2
    for file in ("checkpoint/model.safetensors", "checkpoint/config.json", "results.json"):
        assert (tmp_path / "whole" / "rm" / file).read_bytes() == (tmp_path / "broken" / "rm" / file).read_bytes()
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "broken")
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if not key.startswith(("time/", "throughput/"))}
            for line in (tmp_path / run / "rm" / "metrics.jsonl").read_text().splitlines()
        ]
        for run in ("whole", "broken")
    ]
    assert logs[0] == logs[1]


def stopping(real: Callable[..., Any], calls: int) -> Callable[..., Any]:
    made: list[int] = []

    def wrapped(*arguments: Any) -> Any:
        if len(made) == calls:
            raise KeyboardInterrupt
        made.append(1)
        return real(*arguments)

    return wrapped


# --- safe or not ---


def test_responses_are_labelled_by_the_verdicts_and_both_classes_weigh_the_same(tmp_path: Path, base: Path) -> None:
    outputs = [
        output(f"why {p}", text, credit)
        for p in range(30)
        for text, credit in (("good", 1.0), ("good", 1.0), ("c", 0.0), ("d", 0.5), ("bad", -1.0))
    ]
    write_outputs(tmp_path, outputs)
    settings = stage(objective="pointwise", reads="response")
    reward_model.run(settings, context(tmp_path, base))
    rows = rows_of(tmp_path, "responses")
    assert len(rows) == 30 * 4
    assert all(row["safe"] == (row["response"] != "bad") for row in rows)
    assert rows[0]["policy"] == "0123abcd"
    model = RewardModel.open(tmp_path / "rm" / "checkpoint")
    assert model.mean == 0
    examples = reward_model._examples(rows, settings, model, held_out=False)
    weights = {label: [e.comparison.weight for e in examples if e.comparison.label == label] for label in (0.0, 1.0)}
    assert sum(weights[0.0]) == pytest.approx(sum(weights[1.0])) == pytest.approx(len(examples) / 2)
    assert weights[0.0][0] == pytest.approx(3 * weights[1.0][0])
    found = results_of(tmp_path)
    assert found["num_responses"] == 30 * 4
    assert found["num_held_out"] == 4 * found["num_prompts_held_out"]


def test_the_chosen_responses_of_a_file_are_safe_and_the_rejected_ones_are_not(tmp_path: Path, base: Path) -> None:
    rows = make_rows(stage(data=write_pairs(tmp_path), objective="pointwise"), tmp_path, base)
    assert len(rows) == 80
    assert all(row["safe"] == row["response"].startswith("good") for row in rows)


def test_accuracy_is_over_prompts_and_the_classes_count_the_same() -> None:
    def example(label: float, prompt: str) -> reward_model.Example:
        return reward_model.Example(Comparison(sequences=(np.array([1]),), label=label), prompt)

    # safe: prompt a has 1 of 2 right, b 1 of 1, so 0.75; unsafe: prompt a is wrong, c is a tie, so 0.25
    examples = [example(1.0, "a"), example(1.0, "a"), example(1.0, "b"), example(0.0, "a"), example(0.0, "c")]
    scores = np.array([[2.0], [-1.0], [0.5], [3.0], [0.0]], np.float32)
    mean, (low, high) = reward_model.accuracy_of(scores, examples)
    assert mean == pytest.approx(0.5)
    # both classes: values 0.25 from their mean on either side, variance 0.125, of the mean 0.0625
    assert (low, high) == pytest.approx((0.5 - 1.96 * math.sqrt(0.125) / 2, 0.5 + 1.96 * math.sqrt(0.125) / 2))


def test_accuracy_on_pairs() -> None:
    def example(prompt: str) -> reward_model.Example:
        return reward_model.Example(Comparison(sequences=(np.array([1]), np.array([2]))), prompt)

    scores = np.array([[2.0, 1.0], [1.0, 2.0], [0.5, 0.5], [-1.0, -2.0]], np.float32)
    mean, interval = reward_model.accuracy_of(scores, [example(p) for p in "aabc"])
    assert mean == pytest.approx((0.5 + 0.5 + 1) / 3)
    # 0.5, 0.5 and 1 have variance 1/12, their mean 1/36
    assert interval == pytest.approx([2 / 3 - 1.96 / 6, 2 / 3 + 1.96 / 6])
    assert reward_model.accuracy_of(scores[3:], [example("a")]) == (1.0, [1.0, 1.0])


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "outputs", "why"),
    [
        ({"margin": 0.5}, [("good", 1.0), ("c", 0.5)], r"of 40 none is left: 40 with scores .* margin = 0\.5"),
        ({}, [("good", 1.0)], "no prompt has two different responses"),
        ({"held_out_share": 1e-6}, [("good", 1.0), ("bad", -1.0)], "no pairs held out; the 40 that there are"),
        ({"objective": "pointwise"}, [("good", 1.0), ("bad", 0.0)], "all .* responses to train on are safe"),
        ({"objective": "pointwise"}, [("good", -1.0)], "all .* responses to train on are unsafe"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_refused(
    settings: dict[str, Any], outputs: list[tuple[str, float]], why: str, tmp_path: Path, base: Path
) -> None:
    write_outputs(tmp_path, [output(f"why {p}", text, credit) for p in range(40) for text, credit in outputs])
    with pytest.raises(HoneError, match=why):
        reward_model.run(stage(**settings), context(tmp_path, base))
