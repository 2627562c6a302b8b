"""The engine of other architectures: its sampler against its trainer, its trainer against autograd on the same model,
and, for a model that our decoder implements too, both engines against each other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from hone.algo.packing import pack
from hone.config import SftStage, parse_recipe
from hone.engine.local.engine import LocalEngine
from hone.engine.local.trainer import Trainer
from hone.engine.opening import open_engine
from hone.engine.transformers import TransformersEngine, TransformersTrainer
from hone.models.tiny import tiny_tokenizer
from hone.pipeline.run import run_recipe
from hone.stages import sft
from hone.stages.context import StageContext
from hone.stages.rl import GrpoLoss
from hone.types import HoneError, PackedBatch, Prompt, RunError, Sample, SamplingParams

transformers = pytest.importorskip("transformers", reason="the extra `hub` is not installed")

VOCABULARY = tiny_tokenizer().vocab_size
SHARED = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
# Gemma 2: soft caps and a sliding window, shorter than the sequences here. DeepSeek-V3: latent attention, experts.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("Gemma2Config", {
        "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8,
        "final_logit_softcapping": 4.0,
    }),
    "deepseek_v3": ("DeepseekV3Config", {
        "moe_intermediate_size": 12, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
        "v_head_dim": 4, "num_key_value_heads": 2,
    }),
    "llama": ("LlamaConfig", {"num_key_value_heads": 1}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 8}),
}  # fmt: skip
OTHERS = ("gemma2", "deepseek_v3")


def make(folder: Path, kind: str, **more: Any) -> Path:
    """Write a tiny random model of transformers with a tokenizer of ours."""
    name, settings = CONFIGS[kind]
    torch.manual_seed(5)
    config = getattr(transformers, name)(**{**SHARED, **settings, **more})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config = transformers.GenerationConfig(do_sample=True, top_k=3, temperature=0.3, max_length=4)
    model.save_pretrained(folder)
    tiny_tokenizer().save(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {kind: make(base / kind, kind) for kind in CONFIGS}


def opened(folder: Path) -> TransformersEngine:
    return TransformersEngine.open(folder, trainer=lambda model: TransformersTrainer(model, micro_batch_tokens=80))


def prompts() -> list[Prompt]:
    """Return prompts of different lengths, longer and shorter than the sliding window."""
    rng = np.random.default_rng(1)
    return [Prompt(ids=rng.integers(4, VOCABULARY, n).tolist(), num_samples=k) for n, k in ((3, 2), (12, 3), (1, 1))]


def samples(count: int = 6) -> list[Sample]:
    """Return samples of which some share a prompt, and one completion has a single token."""
    rng = np.random.default_rng(8)
    shared = [rng.integers(VOCABULARY, size=size) for size in (4, 13)]

    def sample(number: int) -> Sample:
        length = 1 if number == 0 else int(rng.integers(2, 14))
        return Sample(
            prompt_ids=shared[number % 2], completion_ids=rng.integers(VOCABULARY, size=length),
            advantage=float(rng.normal()), old_logprobs=rng.normal(-5.5, 0.5, length).astype(np.float32),
            ref_logprobs=rng.normal(-5.5, 0.5, length).astype(np.float32),
        )  # fmt: skip

    return [sample(number) for number in range(count)]


def batch(micro_batch_tokens: int = 10_000) -> PackedBatch:
    given = samples()
    return pack(given, [0.02 * (n + 1) for n in range(len(given))], micro_batch_tokens=micro_batch_tokens)


def plain_logprobs(model: Any, sample: Sample, temperature: float) -> Tensor:
    """Return the log-probabilities of a completion by the textbook, one sequence alone."""
    ids = torch.from_numpy(np.concatenate([sample.prompt_ids, sample.completion_ids]))[None]
    logprobs = (model(input_ids=ids).logits[0] / temperature).log_softmax(-1)
    first = len(sample.prompt_ids) - 1
    return logprobs[first:-1].gather(-1, torch.from_numpy(sample.completion_ids)[:, None])[:, 0]


def grads(model: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("kind", "expected"), [
    ("gemma2", TransformersEngine), ("deepseek_v3", TransformersEngine), ("qwen2", TransformersEngine),
    ("llama", LocalEngine),
])  # fmt: skip
def test_our_decoder_is_taken_where_it_implements_the_model(
    kind: str, expected: type, folders: Mapping[str, Path]
) -> None:
    assert type(open_engine(folders[kind])) is expected


@pytest.mark.parametrize("kind", [*OTHERS, "qwen2"])
@pytest.mark.parametrize("params", [
    SamplingParams(max_tokens=14, temperature=0.8), SamplingParams(max_tokens=14, top_p=0.7, top_k=9, min_p=0.01),
    SamplingParams(max_tokens=14, temperature=0),
], ids=["warm", "truncated", "greedy"])  # fmt: skip
def test_the_sampler_agrees_with_the_trainer(kind: str, params: SamplingParams, folders: Mapping[str, Path]) -> None:
    engine = opened(folders[kind])
    grouped = engine.sample(prompts(), params, seed=3)
    assert [len(group) for group in grouped] == [2, 3, 1]
    rollouts = [rollout for group in grouped for rollout in group]
    drawn = [
        Sample(prompt_ids=rollout.prompt_ids, completion_ids=rollout.completion_ids, advantage=1.0)
        for rollout in rollouts
    ]
    found = engine.logprobs(drawn, temperature=params.temperature or 1.0)
    for rollout, logprobs in zip(rollouts, found, strict=True):
        np.testing.assert_allclose(rollout.sampler_logprobs, logprobs, atol=1e-4)
    assert len({rollout.text for rollout in grouped[1]}) == (1 if params.temperature == 0 else 3)


@pytest.mark.parametrize("kind", OTHERS)
def test_greedy_drawing_is_that_of_plain_generate(kind: str, folders: Mapping[str, Path]) -> None:
    engine = opened(folders[kind])
    [[rollout]] = engine.sample([Prompt(ids=prompts()[1].ids)], SamplingParams(max_tokens=10, temperature=0), seed=0)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folders[kind], attn_implementation="eager")
    plain.generation_config = transformers.GenerationConfig()
    eos = engine.tokenizer.eos_id
    settings = transformers.GenerationConfig(do_sample=False, max_new_tokens=10, eos_token_id=eos, pad_token_id=eos)
    ids = plain.generate(torch.tensor([prompts()[1].ids]), generation_config=settings)
    assert rollout.completion_ids.tolist() == ids[0, 12:].tolist()


@pytest.mark.parametrize("kind", OTHERS)
def test_truncation_keeps_to_the_likeliest_tokens(kind: str, folders: Mapping[str, Path]) -> None:
    engine = opened(folders[kind])
    ids = prompts()[1].ids
    likeliest = engine.model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2).indices.tolist()  # type: ignore[call-arg]
    asked = [Prompt(ids=ids, num_samples=64)]
    drawn = {
        int(rollout.completion_ids[0])
        for rollout in engine.sample(asked, SamplingParams(max_tokens=1, temperature=5.0, top_k=2), seed=2)[0]
    }
    assert drawn == set(likeliest)
    free = engine.sample(asked, SamplingParams(max_tokens=1, temperature=5.0), seed=2)[0]
    assert len({int(rollout.completion_ids[0]) for rollout in free}) > 8


def test_a_completion_ends_at_the_end_token_a_stop_text_or_the_limit(folders: Mapping[str, Path]) -> None:
    engine = opened(folders["gemma2"])
    asked = [Prompt(ids=prompts()[1].ids, num_samples=100)]
    heard: list[tuple[int, int]] = []
    counts: list[int] = []
    [rollouts] = engine.sample(
        asked, SamplingParams(max_tokens=12, temperature=2.0), seed=4, on_finish=counts.append,
        on_token=lambda number, token: heard.append((number, token)),
    )  # fmt: skip
    eos = engine.tokenizer.eos_id
    for number, rollout in enumerate(rollouts):
        ids = rollout.completion_ids.tolist()
        assert [token for owner, token in heard if owner == number] == ids
        assert eos not in ids[:-1]
        assert rollout.finish_reason == ("stop" if ids[-1] == eos else "length")
        assert (len(ids) == 12) or rollout.finish_reason == "stop"
        assert rollout.text == engine.tokenizer.decode(ids)
    assert {rollout.finish_reason for rollout in rollouts} == {"stop", "length"}
    assert counts == list(range(1, 101))

    whole = max((rollout for rollout in rollouts), key=lambda rollout: len(rollout.completion_ids))
    word = engine.tokenizer.decode(whole.completion_ids[4:5].tolist())
    [stopped] = engine.sample(asked, SamplingParams(max_tokens=12, temperature=2.0, stop=(word,)), seed=4)
    for before, after in zip(rollouts, stopped, strict=True):
        ids = after.completion_ids.tolist()
        assert before.completion_ids[: len(ids)].tolist() == ids
        if len(ids) < len(before.completion_ids):
            assert word in engine.tokenizer.decode(ids[-1:])
            assert after.finish_reason == "stop"
    assert sum(len(rollout.completion_ids) for rollout in stopped) < len(heard)


def test_draws_follow_from_the_seed_alone(folders: Mapping[str, Path]) -> None:
    engine = opened(folders["gemma2"])
    params = SamplingParams(max_tokens=8)
    texts = [[r.text for group in engine.sample(prompts(), params, seed=seed) for r in group] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("kind", OTHERS)
def test_loss_and_gradients_are_those_of_autograd_on_the_model(kind: str, folders: Mapping[str, Path]) -> None:
    engine = opened(folders[kind])
    loss = GrpoLoss(0.2, 0.28, 0.05)
    figures = engine.forward_backward(batch(), loss, temperature=0.9)

    plain = transformers.AutoModelForCausalLM.from_pretrained(folders[kind], attn_implementation="eager").eval()
    total = torch.zeros(())
    for number, sample in enumerate(samples()):
        logprobs = plain_logprobs(plain, sample, 0.9)
        old, ref = torch.from_numpy(sample.old_logprobs), torch.from_numpy(sample.ref_logprobs)
        ratio = (logprobs - old).exp()
        gain = torch.minimum(ratio * sample.advantage, ratio.clamp(0.8, 1.28) * sample.advantage)
        kl = (ref - logprobs).exp() - (ref - logprobs) - 1
        total = total + (0.02 * (number + 1) * (0.05 * kl - gain)).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert figures["loss"] == pytest.approx(total.item(), rel=1e-5)
    expected, found = grads(plain), grads(engine.model)
    assert {name for name in expected if expected[name].abs().max() > 0} <= found.keys() <= expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", OTHERS)
def test_micro_batches_do_not_matter(kind: str, folders: Mapping[str, Path]) -> None:
    found = []
    for size in (1, 60, 10_000):
        engine = opened(folders[kind])
        figures = engine.forward_backward(batch(size), GrpoLoss(0.2, 0.2, 0.05))
        found.append((figures, grads(engine.model)))
    for figures, slopes in found[1:]:
        assert figures == pytest.approx(found[0][0], rel=1e-5, abs=1e-6)
        for name, slope in slopes.items():
            torch.testing.assert_close(slope, found[0][1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_both_engines_draw_the_same_from_a_llama(temperature: float, folders: Mapping[str, Path]) -> None:
    ours, theirs = LocalEngine.open(folders["llama"]), opened(folders["llama"])
    params = SamplingParams(max_tokens=16, temperature=temperature)
    pairs = zip(*(engine.sample(prompts(), params, seed=9) for engine in (ours, theirs)), strict=True)
    for one, other in ((a, b) for group, same in pairs for a, b in zip(group, same, strict=True)):
        np.testing.assert_array_equal(one.completion_ids, other.completion_ids)
        np.testing.assert_allclose(one.sampler_logprobs, other.sampler_logprobs, atol=1e-5)
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)


def test_both_engines_learn_the_same_from_a_batch(folders: Mapping[str, Path], tmp_path: Path) -> None:
    ours = LocalEngine.open(folders["llama"], trainer=lambda model: Trainer(model, weight_decay=0.1))
    theirs = TransformersEngine.open(
        folders["llama"], trainer=lambda model: TransformersTrainer(model, weight_decay=0.1)
    )
    for engine in (ours, theirs):
        engine.keep_reference()
    for one, other in zip(ours.logprobs(samples()), theirs.logprobs(samples()), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    figures = [engine.forward_backward(batch(), GrpoLoss(0.2, 0.2, 0.05), temperature=0.9) for engine in (ours, theirs)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5, abs=1e-6)
    assert ours.model.embed_tokens.weight.grad is not None
    slope = theirs.model.get_parameter("model.embed_tokens.weight").grad
    torch.testing.assert_close(slope, ours.model.embed_tokens.weight.grad, rtol=1e-3, atol=1e-5)
    norms = [engine.optim_step(1e-3) for engine in (ours, theirs)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for name, engine in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        engine.save(tmp_path / name)
        for found, kept in zip(engine.ref_logprobs(samples()), engine.logprobs(samples()), strict=True):
            assert np.abs(found - kept).max() > 1e-4
    one, other = (LocalEngine.open(tmp_path / name).model.state_dict() for name in ("ours", "theirs"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_saved_folder_loads_again_and_does_the_same(kind: str, folders: Mapping[str, Path], tmp_path: Path) -> None:
    engine = opened(folders[kind])
    engine.forward_backward(batch(), GrpoLoss(0.2, 0.2))
    engine.optim_step(1e-2)
    engine.save(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    again = opened(tmp_path)
    before = opened(folders[kind])
    sample = samples()[3]
    expected = engine.logprobs([sample])[0]
    np.testing.assert_allclose(plain_logprobs(plain, sample, 1.0).detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(again.logprobs([sample])[0], expected, atol=1e-6)
    assert np.abs(before.logprobs([sample])[0] - expected).max() > 1e-3
    assert again.publish() == engine.publish() != before.publish()
    sampling = json.loads((tmp_path / "generation_config.json").read_text())
    assert (sampling["do_sample"], sampling["top_k"], sampling["temperature"]) == (True, 3, 0.3)
    assert engine.num_parameters == sum(parameter.numel() for parameter in plain.parameters())


@pytest.mark.parametrize("kind", OTHERS)
def test_a_killed_and_resumed_recipe_ends_with_the_same_bits(
    kind: str, folders: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = {
        "name": "warm", "kind": "sft", "start_from": str(folders[kind]), "data": {"count": 24}, "batch_size": 8,
        "optimizer": {"learning_rate": 1e-3}, "checkpoint_every": 2,
    }  # fmt: skip
    zero = {
        "name": "zero", "kind": "rl", "start_from": "warm", "problems": {"count": 8}, "sampling": {"max_tokens": 10},
        "rewards": {"language": 1.0}, "steps": 3, "problems_per_step": 2, "group_size": 4, "kl_coef": 0.01,
        "optimizer": {"learning_rate": 1e-3}, "checkpoint_every": 2,
        "evaluation": {"every": 3, "samples": 1, "problems": {"split": "validation", "count": 2}},
    }  # fmt: skip
    test = {
        "name": "test", "kind": "evaluate", "models": ["zero"], "samples": 1, "sampling": {"max_tokens": 6},
        "problems": {"count": 2},
    }  # fmt: skip
    recipe = parse_recipe({"name": "others", "threads": 1, "stage": [warm, zero, test]}, "others")

    def run(folder: Path) -> list[bytes]:
        run_recipe(recipe, folder, Console(quiet=True))
        return [(folder / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("warm", "zero")]

    undisturbed = run(tmp_path / "undisturbed")
    rows = [json.loads(line) for line in (tmp_path / "undisturbed/zero/metrics.jsonl").read_text().splitlines()]
    assert max(row["sampler/mismatch_kl"] for row in rows) < 1e-8
    assert undisturbed[0] != undisturbed[1]
    real, calls = LocalEngine.optim_step, iter(range(1, 100))

    def deadly(engine: LocalEngine, rate: float) -> float:
        if next(calls) in (3, 7):  # each stage's third step, after its checkpoint
            raise KeyboardInterrupt
        return real(engine, rate)

    monkeypatch.setattr(LocalEngine, "optim_step", deadly)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed")
    assert run(tmp_path / "killed") == undisturbed


def test_weights_that_diverged_stop_the_run(folders: Mapping[str, Path]) -> None:
    engine = opened(folders["gemma2"])
    with torch.no_grad():
        next(engine.model.parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match="logits are not finite"):
        engine.sample(prompts(), SamplingParams(max_tokens=2), seed=0)
    with pytest.raises(RunError, match="the loss is nan"):
        engine.forward_backward(batch(), GrpoLoss(0.2, 0.2))


def test_too_long_and_empty_prompts_are_refused(folders: Mapping[str, Path]) -> None:
    engine = opened(folders["gemma2"])
    with pytest.raises(HoneError, match="come to 257, but the model has 256 positions"):
        engine.sample([Prompt(ids=[5] * 7)], SamplingParams(max_tokens=250), seed=0)
    with pytest.raises(HoneError, match="a prompt is empty"):
        engine.sample([Prompt(ids=[])], SamplingParams(max_tokens=2), seed=0)


# ---- what is refused


def test_pickled_weights_are_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    copy_without(folders["gemma2"], tmp_path, "model.safetensors")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        HoneError, match=r"model_type 'gemma2' is not supported.*; transformers cannot read it: [^\n]+$"
    ):
        open_engine(tmp_path)


def test_code_that_comes_with_a_model_is_never_run(folders: Mapping[str, Path], tmp_path: Path) -> None:
    copy_without(folders["gemma2"], tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "mine.py").write_text("from pathlib import Path\nPath(__file__ + '.ran').touch()\n")
    with pytest.raises(HoneError, match=r"'mine' is not supported.*; transformers cannot read it: [^\n]+$"):
        open_engine(tmp_path)
    assert not (tmp_path / "mine.py.ran").exists()


def test_missing_weights_are_not_drawn_at_random(folders: Mapping[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy_without(folders["gemma2"], tmp_path, "model.safetensors")
    tensors = load_file(folders["gemma2"] / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HoneError, match=r"its weights lack model\.layers\.1\.mlp\.up_proj\.weight"):
        open_engine(tmp_path)


def test_without_transformers_one_line_says_what_to_install(
    folders: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(HoneError, match=r"^[^\n]*'gemma2' is not supported[^\n]*pip install 'hone-r1\[hub\]'$"):
        open_engine(folders["gemma2"])


@pytest.mark.parametrize(("settings", "message"), [
    ({"lora": {}}, "stage student: lora: not for a model that is run through transformers"),
    ({"objective": "logits", "teacher": "own"}, "cannot learn a teacher's distribution; learn from the teacher's"),
])  # fmt: skip
def test_what_is_not_supported_is_refused_before_any_work(
    settings: dict[str, Any], message: str, folders: Mapping[str, Path], tmp_path: Path
) -> None:
    table = {
        "name": "student", "kind": "sft", "start_from": "own", "data": {"count": 4},
        "optimizer": {"learning_rate": 1e-3}, **settings,
    }  # fmt: skip
    stage = parse_recipe({"name": "test", "stage": [table]}, "test").stage[0]
    assert isinstance(stage, SftStage)
    models = {"own": folders["gemma2"]}
    context = StageContext(name="student", folder=tmp_path, seed=0, models=models, console=Console(quiet=True))
    with pytest.raises(HoneError, match=message):
        sft.run(stage, context)
    assert not (tmp_path / "metrics.jsonl").exists()


def copy_without(folder: Path, to: Path, *left_out: str) -> None:
    for file in folder.iterdir():
        if file.name not in left_out:
            (to / file.name).write_bytes(file.read_bytes())
