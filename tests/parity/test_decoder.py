"""The decoder against transformers: the same folder gives the same logits, both ways, and the same words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from torch.nn import functional as F

transformers = pytest.importorskip("transformers")

from hone.engine.local.sampler import Sampler  # noqa: E402
from hone.models.attention import Layout  # noqa: E402
from hone.models.decoder import Decoder, Linear, RmsNorm, swiglu  # noqa: E402
from hone.models.loading import copy_model, load_model, save_model  # noqa: E402
from hone.models.tokenizer import Tokenizer, word_tokenizer  # noqa: E402
from hone.types import HoneError, Message, Prompt, SamplingParams, Segment  # noqa: E402

VOCABULARY = 61
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 96, "rms_norm_eps": 1e-5,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}  # fmt: skip
TEMPLATE = """{% for message in messages %}
    {% if message.role == "system" and not loop.first %}{{ raise_exception("the system turn comes first") }}{% endif %}
<|{{ message.role }}|> {{ message.content | trim }} {{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|> {% endif %}"""


def llama(**changes: Any) -> Any:
    config = transformers.LlamaConfig(**{**SHAPE, "num_key_value_heads": 4, "tie_word_embeddings": False, **changes})
    return transformers.LlamaForCausalLM(config)


def qwen2(**changes: Any) -> Any:
    config = transformers.Qwen2Config(**{**SHAPE, "num_key_value_heads": 2, "tie_word_embeddings": True, **changes})
    return transformers.Qwen2ForCausalLM(config)


def qwen3(**changes: Any) -> Any:
    settings = {**SHAPE, "num_key_value_heads": 2, "head_dim": 12, "tie_word_embeddings": True, **changes}
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings))


MODELS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "llama-gqa": lambda: llama(num_key_value_heads=2),
    "llama-mqa": lambda: llama(num_key_value_heads=1),
    "llama-tied": lambda: llama(tie_word_embeddings=True),
    "llama-head-dim": lambda: llama(head_dim=20),
    "llama-biases": lambda: llama(num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "llama-rope-llama3": lambda: llama(num_key_value_heads=2, rope_parameters=LLAMA3),
    "llama-rope-linear": lambda: llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "qwen2": qwen2,
    "qwen2-untied": lambda: qwen2(
        tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
    ),
    "qwen3": qwen3,
    "qwen3-untied": lambda: qwen3(tie_word_embeddings=False, attention_bias=True),
}


@pytest.fixture(params=MODELS)
def theirs(request: pytest.FixtureRequest) -> Any:
    return scrambled(MODELS[request.param]())


def scrambled(model: Any) -> Any:
    """Draw all weights large, biases and norms among them, so that a part left out moves the logits far."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.15, generator=generator)
            if "norm" in name:
                parameter.add_(1)
    return model.eval()


def some_ids(rows: int = 3, length: int = 40) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def our_logits(model: Decoder, ids: torch.Tensor) -> torch.Tensor:
    return model.logits(model(ids))


@torch.no_grad()
def their_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids).logits.float()


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-5) -> None:
    assert theirs.std() > 0.3, "logits near zero would compare nothing"
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=atol)


def test_a_folder_of_transformers_gives_the_same_logits(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    assert_same(our_logits(load_model(tmp_path), some_ids()), their_logits(theirs, some_ids()))


def test_a_folder_of_ours_gives_transformers_the_same_logits(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path / "in")
    (tmp_path / "out").mkdir()
    save_model(load_model(tmp_path / "in"), tmp_path / "out")
    again, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(again) is type(theirs)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(their_logits(again, some_ids()), their_logits(theirs, some_ids()))


@pytest.mark.parametrize("lengths", [(5, 5, 5), (5, 9, 1)], ids=["alike", "ragged"])
@torch.no_grad()
def test_decoding_with_a_cache_gives_the_logits_of_the_whole_sequence(
    lengths: tuple[int, ...], theirs: Any, tmp_path: Path
) -> None:
    """Prompts begin rows of the cache, the middle one two of them; the last row is never used."""
    theirs.save_pretrained(tmp_path)
    model, ids = load_model(tmp_path), some_ids()
    prompts = torch.cat([ids[row, :length] for row, length in enumerate(lengths)])
    layout = Layout.of([Segment(length) for length in lengths])
    ends = [sum(lengths[: n + 1]) for n in range(3)]
    tokens = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    cache = model.cache(5, 40)
    filled = cache.prompts([(tokens[0], slice(0, 1)), (tokens[1], slice(1, 3)), (tokens[2], slice(3, 4))])
    prefill = model.logits(model.flat(prompts, layout, filled))
    rows = [0, 1, 1, 2]
    steps = [
        model.logits(model.decode(torch.stack([ids[row, lengths[row] + step] for row in rows]), cache))
        for step in range(30)
    ]
    expected = their_logits(theirs, ids)
    for number, row in enumerate(rows):
        assert_same(prefill[tokens[row]], expected[row, : lengths[row]])
        assert_same(torch.stack(steps, 1)[number], expected[row, lengths[row] : lengths[row] + 30])
    assert cache.lengths.tolist() == [*(lengths[row] + 30 for row in rows), 0]


@torch.no_grad()
def test_a_row_that_moves_and_one_that_begins_anew_go_on_as_they_were(theirs: Any, tmp_path: Path) -> None:
    """What a longer sequence left in a row is not read by the shorter one that follows it."""
    theirs.save_pretrained(tmp_path)
    model, ids = load_model(tmp_path), some_ids()
    expected = their_logits(theirs, ids)
    cache = model.cache(3, 40)
    prompts = torch.cat([ids[0, :12], ids[1, :4], ids[2, :7]])
    places = [(slice(0, 12), slice(0, 1)), (slice(12, 16), slice(1, 2)), (slice(16, 23), slice(2, 3))]
    model.flat(prompts, Layout.of([Segment(12), Segment(4), Segment(7)]), cache.prompts(places))
    cache.move(2, 0)  # the first sequence leaves; the third takes its row, and a new one the third's
    model.flat(ids[0, :3], Layout.of([Segment(3)]), cache.prompts([(slice(0, 3), slice(2, 3))]))
    for step in range(20):
        drawn = torch.stack([ids[2, 7 + step], ids[1, 4 + step], ids[0, 3 + step]])
        found = model.logits(model.decode(drawn, cache))
        assert_same(found, torch.stack([expected[2, 7 + step], expected[1, 4 + step], expected[0, 3 + step]]))


@torch.no_grad()
def test_a_flat_batch_with_shared_prompts_gives_the_logits_of_each_whole_sequence(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    model, prompt, parts = load_model(tmp_path), some_ids(1, 14)[0], some_ids(4, 20).flip(1)
    lengths = (20, 1, 17, 8)
    own = [part[:length] for part, length in zip(parts, lengths, strict=True)]
    segments = [Segment(14), Segment(20, 0), Segment(1, 0), Segment(17), Segment(8, 0)]  # the fourth stands alone
    hidden = model.flat(torch.cat([prompt, *own]), Layout.of(segments))
    found = model.logits(hidden).split([14, *lengths])
    for number, part in enumerate(own):
        before = prompt[:0] if number == 2 else prompt
        expected = their_logits(theirs, torch.cat([before, part])[None])[0]
        assert_same(found[number + 1], expected[len(before) :])
        if len(before):
            assert_same(found[0], expected[: len(before)])


def test_a_sequence_longer_than_the_positions_is_refused(tmp_path: Path) -> None:
    scrambled(qwen2()).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    ids = torch.zeros(97, dtype=torch.long)
    with pytest.raises(HoneError, match="a sequence of 97 tokens is longer than the model's 96 positions"):
        model.flat(ids, Layout.of([Segment(60), Segment(37, 0)]))
    assert model.flat(ids, Layout.of([Segment(60), Segment(36, 0), Segment(1, 0)])).shape == (97, 32)


@torch.no_grad()
def test_prepacked_weights_give_the_same_logits_and_leave_nothing_behind(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    before, names = our_logits(model, some_ids()), list(model.state_dict())
    linears = [module for module in model.modules() if isinstance(module, Linear)]
    with model.prepacked():
        assert all(module.packed is not None for module in linears)
        assert list(model.state_dict()) == names
        assert_same(our_logits(model, some_ids()), before)
        cache = model.cache(1, 40)
        model.flat(some_ids(1, 3)[0], Layout.of([Segment(3)]), cache.prompts([(slice(0, 3), slice(0, 1))]))
        logits = model.logits(model.decode(some_ids()[0, :1], cache))
    assert_same(logits[0], our_logits(model, torch.cat([some_ids(1, 3)[0], some_ids()[0, :1]])[None])[0, -1])
    assert all(module.packed is None for module in linears)
    assert torch.equal(our_logits(model, some_ids()), before)
    model.embed_tokens.weight.mul_(2)  # weights that change afterwards are those that are read
    assert not torch.equal(our_logits(model, some_ids()), before)
    with pytest.raises(RuntimeError, match="stop"), model.prepacked():
        raise RuntimeError("stop")
    assert all(module.packed is None for module in linears)


@pytest.mark.parametrize("shape", [(9, 16), (3, 4, 16), (1, 16)])
def test_the_norm_and_its_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight, upstream = (torch.randn(size, generator=generator) * 3 for size in (shape, (16,), shape))
    norm = RmsNorm(16, 1e-2)
    norm.weight.data.copy_(weight)
    ours = norm(x.requires_grad_())
    found = torch.autograd.grad(ours, (x, norm.weight), upstream)
    theirs = F.rms_norm(x, (16,), weight.requires_grad_(), 1e-2)
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(found, torch.autograd.grad(theirs, (x, weight), upstream), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    double = norm.double()
    assert torch.autograd.gradcheck(double, (x.detach().double().requires_grad_(),))
    assert torch.autograd.gradcheck(
        lambda w: torch.func.functional_call(double, {"weight": w}, x.detach().double()),
        (weight.detach().double().requires_grad_(),),
    )


def test_the_norm_of_nothing_is_nothing() -> None:
    norm, x = RmsNorm(4, 1e-6), torch.zeros(1, 4, requires_grad=True)
    norm(x).sum().backward()
    assert norm(x).tolist() == [[0.0] * 4]
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(9, 16), (3, 4, 16)])
def test_the_gate_and_its_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    both = (torch.randn(shape, generator=generator) * 4).requires_grad_()
    upstream = torch.randn(*shape[:-1], 8, generator=generator)
    ours = swiglu(both)
    gate, up = both.chunk(2, -1)
    theirs = F.silu(gate) * up
    torch.testing.assert_close(ours, theirs)
    found, expected = (torch.autograd.grad(out, both, upstream)[0] for out in (ours, theirs))
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(swiglu, (both.detach().double().requires_grad_(),))


def test_rows_of_different_lengths_do_not_see_their_padding(tmp_path: Path) -> None:
    theirs = scrambled(qwen3())
    theirs.save_pretrained(tmp_path)
    ids = some_ids()
    padded = ids.clone()
    padded[1, 17:] = 0
    ours = our_logits(load_model(tmp_path), padded)
    assert_same(ours[1, :17], their_logits(theirs, ids[1:2, :17])[0])


@pytest.mark.parametrize("name", ["llama-rope-llama3", "qwen2", "qwen3-untied"])
def test_sharded_weights(name: str, tmp_path: Path) -> None:
    theirs = scrambled(MODELS[name]())
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same(our_logits(load_model(tmp_path), some_ids()), their_logits(theirs, some_ids()))


@pytest.mark.parametrize("name", ["llama-gqa", "qwen2", "qwen3"])
def test_bfloat16_weights_are_read_exactly(name: str, tmp_path: Path) -> None:
    """A bfloat16 folder is a float32 model with rounded weights, and goes back to the same bits."""
    scrambled(MODELS[name]()).to(torch.bfloat16).save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours = load_model(tmp_path)
    assert all(parameter.dtype == torch.float32 for parameter in ours.parameters())
    assert_same(our_logits(ours, some_ids()), their_logits(theirs, some_ids()))

    (tmp_path / "out").mkdir()
    save_model(ours, tmp_path / "out", dtype=torch.bfloat16)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(their_logits(again, some_ids()), their_logits(theirs, some_ids()))


@pytest.mark.parametrize("shard", ["20KB", "1GB"])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16, torch.float16])
def test_a_copied_folder_is_the_model_in_the_type_asked_for(
    dtype: torch.dtype | None, shard: str, tmp_path: Path
) -> None:
    theirs = scrambled(MODELS["qwen3-untied"]())
    theirs.save_pretrained(tmp_path / "in", max_shard_size=shard)
    (tmp_path / "out").mkdir()
    copy_model(tmp_path / "in", tmp_path / "out", dtype)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert again.dtype == (dtype or torch.float32)
    expected = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "in", dtype=again.dtype)
    assert torch.equal(their_logits(again, some_ids()), their_logits(expected, some_ids()))


def test_weights_too_large_for_a_type_are_not_copied_as_infinite(folder: Path, tmp_path: Path) -> None:
    change_weights(folder, lambda tensors: tensors["model.norm.weight"].fill_(1e5))
    (tmp_path / "out").mkdir()
    with pytest.raises(HoneError, match=r"model\.safetensors: some weights are not finite as torch\.float16"):
        copy_model(folder, tmp_path / "out", torch.float16)


def test_the_rotary_settings_of_older_transformers(tmp_path: Path) -> None:
    """Before version 5, `rope_theta` stood by itself and the rest under `rope_scaling`, `type` being the older name."""
    theirs = scrambled(MODELS["llama-rope-llama3"]())
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    for key in ("rope_type", "type"):
        renamed = {key if name == "rope_type" else name: value for name, value in scaling.items()}
        (tmp_path / "config.json").write_text(json.dumps({**config, "rope_scaling": renamed}), "utf-8")
        assert_same(our_logits(load_model(tmp_path), some_ids()), their_logits(theirs, some_ids()))


def words(eos: str = "<|end|>") -> Tokenizer:
    special = ["<unk>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>"]
    plain = [f"w{number}" for number in range(VOCABULARY - len(special))]
    return word_tokenizer(plain, special=special, eos=eos, chat_template=TEMPLATE)


@pytest.mark.parametrize("name", ["llama-rope-llama3", "llama-biases", "qwen2", "qwen3"])
def test_greedy_generation_token_for_token(name: str, tmp_path: Path) -> None:
    """One batch of ragged prompts of ours, each prompt alone in transformers; some completions end by themselves."""
    theirs = scrambled(MODELS[name]())
    theirs.save_pretrained(tmp_path)
    theirs.generation_config = transformers.GenerationConfig()  # the default one of Llama ends at token 2
    prompts = [some_ids(1, length)[0] for length in (1, 3, 9, 17, 30)]

    def generated(prompt: torch.Tensor, eos_id: int | None) -> list[int]:
        settings = transformers.GenerationConfig(
            do_sample=False, max_new_tokens=32, eos_token_id=eos_id, pad_token_id=0, bos_token_id=None
        )
        seen = torch.ones(1, len(prompt), dtype=torch.long)
        out = theirs.generate(prompt[None], attention_mask=seen, generation_config=settings)
        return out[0, len(prompt) :].tolist()

    free = [generated(prompt, None) for prompt in prompts]
    eos_id = free[2][6]  # a token that does come up
    core = words()
    tokenizer = words(eos=core.core.id_to_token(eos_id))
    assert tokenizer.eos_id == eos_id
    expected = [generated(prompt, eos_id) for prompt in prompts]
    sampler = Sampler(load_model(tmp_path), tokenizer)
    groups = sampler.sample(
        [Prompt(ids=prompt.tolist()) for prompt in prompts], SamplingParams(max_tokens=32, temperature=0), seed=0
    )
    assert [group[0].completion_ids.tolist() for group in groups] == expected
    reasons = [group[0].finish_reason for group in groups]
    assert reasons == ["stop" if ids[-1] == eos_id else "length" for ids in expected]
    assert "stop" in reasons


def byte_pairs() -> Tokenizer:
    """Make a tokenizer of the kind that real Qwen models have: byte-level pairs behind their way of cutting words."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.normalizer = tokenizers.normalizers.NFC()
    core.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330, show_progress=False, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(["the words that there are, and these, 1234", "用 3 8 8 得 61，用 3 得 8"] * 3, trainer)
    special = ("<|endoftext|>", "<|end|>", "<|user|>")
    core.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in special])
    core.add_tokens([tokenizers.AddedToken(token) for token in ("<think>", "</think>")])
    return Tokenizer(core, eos="<|end|>", pad=None, chat_template=TEMPLATE)


@pytest.mark.parametrize(
    ("name", "make"),
    [("llama", words), ("qwen3", words), ("llama", byte_pairs), ("qwen2", byte_pairs), ("qwen3", byte_pairs)],
)
def test_a_tokenizer_saved_by_us_works_the_same_in_transformers(
    name: str, make: Callable[[], Tokenizer], tmp_path: Path
) -> None:
    """Qwen2 with words is left out: transformers 5 reads every qwen2 folder's tokenizer as Qwen's byte-level pairs."""
    scrambled(MODELS[name]()).save_pretrained(tmp_path / "in")
    folder = tmp_path / "out"
    folder.mkdir()
    save_model(load_model(tmp_path / "in"), folder)
    make().save(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for ours in (make(), Tokenizer.load(folder)):
        texts = [
            "w1 w2 w3", "  w5\nw5 nobody-knows <think> w7 </think> <|end|>", "<|end|><|end|>w4", "<|user|> w1", "",
            "The words aren't there;  12345\n\n用 3 得 61 <think>é</think>",
        ]  # fmt: skip
        for text in texts:
            ids = ours.encode(text)
            assert theirs.encode(text, add_special_tokens=False) == ids
            assert theirs(text)["input_ids"] == ids
            kept = [i for i in ids if i != ours.eos_id]
            assert theirs.decode(kept, skip_special_tokens=False) == ours.decode(ids)
        assert (theirs.eos_token, theirs.eos_token_id) == (ours.eos, ours.eos_id)
        assert theirs.pad_token == ours.pad
        assert len(theirs) == ours.vocab_size
        conversations = [
            [Message(role="user", content=" w1 w2 ")],
            [Message(role="system", content="w9"), Message(role="user", content="w1 <b> & w2")],
            [Message(role=role, content="w3") for role in ("user", "assistant", "user")],
        ]
        for turns in conversations:
            plain = [{"role": turn.role, "content": turn.content} for turn in turns]
            rendered = theirs.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
            assert ours.render(turns) == rendered


def test_a_tokenizer_of_transformers_renders_its_start_token(tmp_path: Path) -> None:
    """Templates of Llama and DeepSeek begin with `bos_token`, and a model without it answers worse."""
    core = words().core
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="w0", eos_token="<|end|>")
    fast.chat_template = "{{ bos_token }} " + TEMPLATE
    fast.save_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path)
    turns = [{"role": "user", "content": "w1"}]
    expected = fast.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert expected.startswith("w0 ")
    assert ours.render([Message(role="user", content="w1")]) == expected
    (tmp_path / "again").mkdir()
    ours.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").render([Message(role="user", content="w1")]) == expected
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert theirs.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == expected


def test_a_template_that_refuses_a_conversation_is_quoted() -> None:
    with pytest.raises(HoneError, match="the system turn comes first"):
        words().render([Message(role="user", content="w1"), Message(role="system", content="w2")])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scrambled(qwen2()).save_pretrained(tmp_path)
    return tmp_path


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"use_sliding_window": True}, "sliding-window attention is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "yarn"),
        ({"num_key_value_heads": 3}, "4 attention heads are not a multiple of 3"),
    ],
)
def test_what_the_decoder_does_not_implement_is_refused_by_name(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    change_config(folder, **changes)
    with pytest.raises(HoneError, match=message):
        load_model(folder)


def test_a_missing_setting_is_named(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text("utf-8"))
    del config["intermediate_size"]
    file.write_text(json.dumps(config), "utf-8")
    with pytest.raises(HoneError, match="intermediate_size is missing"):
        load_model(folder)


@pytest.mark.parametrize("text", ["{", "", "[1]", '"text"', "\x00"])
def test_a_damaged_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, "utf-8")
    with pytest.raises(HoneError, match=r"config\.json"):
        load_model(folder)


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_pickled_weights_are_refused_unread(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Bomb(folder / "went-off")}, folder / "pytorch_model.bin")
    with pytest.raises(HoneError, match=r"pytorch_model\.bin is pickled"):
        load_model(folder)
    assert not (folder / "went-off").exists()


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(HoneError, match=r"no model\.safetensors there$"):
        load_model(folder)


def test_a_file_outside_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An index comes with a model and is not trusted: its files are read, and copied by their names."""
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    for use in (load_model, lambda inside: copy_model(inside, tmp_path_factory.mktemp("out"))):
        with pytest.raises(HoneError, match=r"names the file '\.\./model\.safetensors', which is not in the folder"):
            use(folder)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "damage",
    [cut, lambda data: b"", lambda data: b"\xff" * 8 + data[8:], lambda data: data[:8] + b"?" * 40 + data[48:]],
    ids=["cut", "empty", "length", "header"],
)  # fmt: skip
def test_damaged_safetensors_are_refused_by_name(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(HoneError, match=r"model\.safetensors: damaged"):
        load_model(folder)


def test_a_damaged_or_incomplete_index_is_refused(tmp_path: Path) -> None:
    scrambled(qwen2()).save_pretrained(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(HoneError, match=f"no {shard.name} there"):
        load_model(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    for text in ("{", "{}", '{"weight_map": 3}'):
        index.write_text(text, "utf-8")
        with pytest.raises(HoneError, match=r"model\.safetensors\.index\.json"):
            load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": 40}, "gate_up_proj"),
        ({"hidden_size": 48}, "size mismatch"),
        ({"vocab_size": 60}, "embed_tokens"),
        ({"num_hidden_layers": 2}, r"Unexpected.*layers\.2"),
        ({"num_hidden_layers": 4}, r"Missing.*layers\.3"),
        ({"tie_word_embeddings": False}, r"Missing.*lm_head"),
        ({"model_type": "qwen3"}, "q_norm"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(HoneError, match=f"the weights do not fit config.json: .*{message}"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("model.layers.1.self_attn.k_proj.weight"), r"layers\.1\.qkv_proj"),
        (lambda tensors: tensors.pop("model.embed_tokens.weight"), "embed_tokens"),
        (lambda tensors: tensors.pop("model.norm.weight"), r"norm\.weight"),
        (
            lambda tensors: tensors.update({"model.layers.1.self_attn.k_proj.weight": torch.zeros(16, 30)}),
            r"layers\.1\.qkv_proj",
        ),
        (lambda tensors: tensors.update({"model.layers.0.mlp.extra.weight": torch.zeros(2, 2)}), r"extra\.weight"),
    ],
    ids=["part-missing", "embedding-missing", "norm-missing", "part-of-another-width", "unknown"],
)  # fmt: skip
def test_weights_that_do_not_fit_the_config_are_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    change_weights(folder, change)
    with pytest.raises(HoneError, match=message):
        load_model(folder)
