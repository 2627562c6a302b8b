"""GGUF, llama.cpp's file format, from and to model folders. The only file that imports `gguf`.

A GGUF file holds the tensors of a Hugging Face folder under other names, with Llama's query and key rows in another
order and often quantised, and a byte-level BPE tokenizer as lists in its metadata. It is read de-quantised and written
without quantisation.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, processors
from tokenizers import pre_tokenizers as pre
from tokenizers.decoders import ByteLevel
from torch import Tensor

from hone.models import tokenizer
from hone.models.decoder import MODEL_TYPES, DecoderConfig, rotary_tables
from hone.models.loading import read_config, read_tensors, write_config
from hone.types import HoneError

try:
    import gguf
except ImportError as error:
    raise HoneError("GGUF files need the package gguf: pip install 'hone-r1[gguf]'") from error

_ROPE_FREQS = "rope_freqs.weight"  # Llama 3's scaling, as one divisor a frequency
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_DTYPES = {
    torch.float32: (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    torch.float16: (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    torch.bfloat16: (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
Rows = np.ndarray[Any, Any]


def _split(digits: str) -> Any:
    """Cut text as Llama 3 and Qwen 2 do, numbers by the pattern `digits`."""
    cut = pre.Split(Regex(_CONTRACTIONS + digits + _REST), behavior="isolated")
    return pre.Sequence([cut, pre.ByteLevel(add_prefix_space=False, use_regex=False)])


# How a text is cut before the merges, by GGUF's name for it (`tokenizer.ggml.pre`).
PRE_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "smollm": lambda: pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]),
    "gpt-2": lambda: pre.ByteLevel(add_prefix_space=False),
    "llama-bpe": lambda: _split(r"\p{N}{1,3}"),
    "qwen2": lambda: _split(r"\p{N}"),
    "deepseek-r1-qwen": lambda: _split(r"\p{N}"),
}


def convert(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file into a folder that exists; refuse by name what the decoder does not implement."""
    try:
        reader = gguf.GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        config = _config(file, fields, tensors)
        weights = dict(_weights(file, config, tensors))
        text = _tokenizer(file, fields)
    except KeyError as error:
        raise HoneError(f"{file}: {error.args[0]} is missing") from error
    except (OSError, ValueError, IndexError, OverflowError, TypeError, struct.error, NotImplementedError) as error:
        raise HoneError(f"{file}: cannot be read as GGUF: {error}") from error
    dtype = _narrowest(list(weights.values()))
    save_file(
        {name: weight.to(dtype) for name, weight in weights.items()},
        folder / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    ids = {"bos_token_id": text.bos and text.core.token_to_id(text.bos), "eos_token_id": text.eos_id}
    write_config(config, folder, dtype, {**ids, "pad_token_id": text.core.token_to_id(text.pad)})
    text.save(folder)


def _config(file: Path, fields: dict[str, Any], tensors: dict[str, Any]) -> DecoderConfig:
    kind = fields["general.architecture"]
    if kind not in MODEL_TYPES:
        raise HoneError(f"{file}: architecture {kind!r} is not supported ({', '.join(MODEL_TYPES)} are)")
    heads, width = fields[f"{kind}.attention.head_count"], fields[f"{kind}.embedding_length"]
    config = DecoderConfig(
        model_type=kind,
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        hidden_size=width,
        intermediate_size=fields[f"{kind}.feed_forward_length"],
        num_hidden_layers=fields[f"{kind}.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=fields.get(f"{kind}.attention.head_count_kv", heads),
        head_dim=fields.get(f"{kind}.attention.key_length", width // heads),
        max_position_embeddings=fields[f"{kind}.context_length"],
        rms_norm_eps=_rounded(fields[f"{kind}.attention.layer_norm_rms_epsilon"]),
        rope_theta=_rounded(fields.get(f"{kind}.rope.freq_base", 10000.0)),
        tie_word_embeddings="output.weight" not in tensors,
        attention_bias=kind != "qwen2" and "blk.0.attn_q.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
    )
    return replace(config, rope_scaling=_rope_scaling(file, config, fields, tensors))


def _rope_scaling(
    file: Path, config: DecoderConfig, fields: dict[str, Any], tensors: dict[str, Any]
) -> dict[str, Any] | None:
    key = f"{config.model_type}.rope.scaling"
    kind = fields.get(f"{key}.type", "none")
    if kind == "linear":
        return {"rope_type": "linear", "factor": fields[f"{key}.factor"]}
    if kind == "none" and _ROPE_FREQS in tensors:
        divisors = tensors[_ROPE_FREQS].data
        scaling = {
            "rope_type": "llama3", "factor": float(divisors.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": fields.get(f"{key}.original_context_length", 8192),
        }  # fmt: skip
        if np.allclose(_divisors(replace(config, rope_scaling=scaling)), divisors, rtol=1e-4):
            return scaling
    if kind != "none" or _ROPE_FREQS in tensors:
        raise HoneError(f"{file}: its rope scaling is not supported; take the model's safetensors folder")
    return None


def _divisors(config: DecoderConfig) -> Rows:
    """Return what each rotary frequency is divided by under the config's scaling, [D/2]."""

    def frequencies(scaling: Any) -> Tensor:
        cos, sin = rotary_tables(replace(config, rope_scaling=scaling, max_position_embeddings=2))
        return torch.atan2(sin[1], cos[1])

    return (frequencies(None) / frequencies(config.rope_scaling)).numpy()


def _weights(file: Path, config: DecoderConfig, tensors: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights as float32 under Hugging Face's names."""
    heads = _turned_heads(config)
    for name, tensor in tensors.items():
        if name == _ROPE_FREQS:
            continue
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        place, _, kind = name.rpartition(".")
        layer, _, part = place.rpartition(".")
        if config.model_type == "llama" and part in heads:
            weight = halves(weight, heads[part])
        if place in _TOP:
            yield f"{_TOP[place]}.{kind}", torch.from_numpy(weight)
        elif part in _BLOCK:
            yield f"model.layers.{layer.removeprefix('blk.')}.{_BLOCK[part]}.{kind}", torch.from_numpy(weight)
        else:
            raise HoneError(f"{file}: tensor {name} is not one that the decoder has")


def _turned_heads(config: DecoderConfig) -> dict[str, int]:
    """Return the projections that are turned by position, by their GGUF names, and how many heads each has."""
    return {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}


def halves(rows: Rows, heads: int) -> Rows:
    """Order each head's rows as Hugging Face does, turning i with i + D/2; llama.cpp turns 2i with 2i + 1."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape).copy()


def pairs(rows: Rows, heads: int) -> Rows:
    """The reverse of `halves`."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape).copy()


def _narrowest(weights: list[Tensor]) -> torch.dtype:
    """Return the smallest type that holds every weight exactly."""
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(weight.to(dtype).float(), weight) for weight in weights):
            return dtype
    return torch.float32


def _rounded(value: float) -> float:
    """Return the short number that was written as float32, e.g. 1e-05 for 9.999999747378752e-06."""
    return float(f"{value:.7g}")


# ---- writing


def write(folder: Path, file: Path, *, name: str, licence: str, dtype: torch.dtype) -> None:
    """Write a model folder as a GGUF file, its matrices as `dtype`; refuse by name what llama.cpp cannot represent."""
    config = read_config(folder)
    if config.model_type == "qwen3" and config.attention_bias:
        raise HoneError(f"{folder}: llama.cpp has no Qwen3 with attention biases, so it cannot be written as GGUF")
    writer = gguf.GGUFWriter(file, config.model_type)
    writer.add_name(name)
    writer.add_license(licence)
    writer.add_file_type(_DTYPES[dtype][1])
    _add_config(writer, config)
    _add_tokenizer(writer, folder, config.vocab_size)
    if (config.rope_scaling or {}).get("rope_type") == "llama3":
        writer.add_tensor(_ROPE_FREQS, _divisors(config))
    _add_weights(writer, folder, config, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_config(writer: gguf.GGUFWriter, config: DecoderConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    scaling = config.rope_scaling or {}
    if scaling.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling.get("rope_type") == "llama3":
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])


def _add_weights(writer: gguf.GGUFWriter, folder: Path, config: DecoderConfig, dtype: torch.dtype) -> None:
    top = {theirs: ours for ours, theirs in _TOP.items()}
    block = {theirs: ours for ours, theirs in _BLOCK.items()}
    heads = _turned_heads(config)
    for name, tensor in read_tensors(folder):
        place, _, kind = name.rpartition(".")
        number, _, part = place.removeprefix("model.layers.").partition(".")
        if name.endswith("rotary_emb.inv_freq") or (place == "lm_head" and config.tie_word_embeddings):
            continue
        if place not in top and part not in block:
            raise HoneError(f"{folder}: weight {name} is not one that GGUF has a place for")
        weight = tensor.float().numpy()
        if config.model_type == "llama" and block.get(part) in heads:
            weight = pairs(weight, heads[block[part]])
        kept = _DTYPES[dtype if weight.ndim > 1 else torch.float32][0]  # llama.cpp wants norms and biases in float32
        target = top[place] if place in top else f"blk.{number}.{block[part]}"
        writer.add_tensor(f"{target}.{kind}", gguf.quants.quantize(weight, kept), raw_dtype=kept)


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    text = tokenizer.Tokenizer.load(folder)
    raw = json.loads(text.core.to_str())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_cut(folder, raw))
    tokens = {index: (token, gguf.TokenType.NORMAL) for token, index in raw["model"]["vocab"].items()}
    for added in raw["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]] = (added["content"], kind)
    # An embedding is often a few rows longer than the vocabulary.
    rows = [tokens.get(index, (f"[PAD{index}]", gguf.TokenType.UNUSED)) for index in range(size)]
    writer.add_token_list([token for token, _ in rows])
    writer.add_token_types([kind for _, kind in rows])
    writer.add_token_merges([" ".join(merge) for merge in raw["model"]["merges"]])
    writer.add_eos_token_id(text.eos_id)
    writer.add_pad_token_id(_id(folder, text, text.pad))
    if text.bos:
        writer.add_bos_token_id(_id(folder, text, text.bos))
    writer.add_add_bos_token(text.bos is not None and text.core.encode("").tokens == [text.bos])
    if text.chat_template:
        writer.add_chat_template(text.chat_template)


def _id(folder: Path, text: tokenizer.Tokenizer, token: str) -> int:
    index = text.core.token_to_id(token)
    if index is None:
        raise HoneError(f"{folder}: tokenizer_config.json names the token {token!r}, which the vocabulary lacks")
    return int(index)


def _cut(folder: Path, raw: dict[str, Any]) -> str:
    """Return GGUF's name for the way in which a tokenizer cuts text before its merges."""
    if raw["model"]["type"] != "BPE":
        raise HoneError(
            f"{folder}: llama.cpp has no tokenizer of whole words ({raw['model']['type']}), so it cannot be written as "
            "GGUF; export it with --format hf"
        )
    found = _without_offsets(raw["pre_tokenizer"])
    for name, make in PRE_TOKENIZERS.items():
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = make()
        if _without_offsets(json.loads(core.to_str())["pre_tokenizer"]) == found:
            return name
    raise HoneError(f"{folder}: its tokenizer cuts text in a way that GGUF has no name for here; use --format hf")


def _without_offsets(cut: Any) -> Any:
    """Leave out what changes no ids."""
    if isinstance(cut, dict):
        return {key: _without_offsets(value) for key, value in cut.items() if key != "trim_offsets"}
    return [_without_offsets(value) for value in cut] if isinstance(cut, list) else cut


# ---- the tokenizer


def _tokenizer(file: Path, fields: dict[str, Any]) -> tokenizer.Tokenizer:
    kind, cut = fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or cut not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise HoneError(f"{file}: tokenizer {kind!r} of the kind {cut!r} is not supported (gpt2 of {known} is)")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    core = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=cut == "llama-bpe"))
    core.pre_tokenizer, core.decoder = PRE_TOKENIZERS[cut](), ByteLevel()
    if cut == "qwen2":
        core.normalizer = normalizers.NFC()
    for wanted, special in ((gguf.TokenType.CONTROL, True), (gguf.TokenType.USER_DEFINED, False)):
        added = [token for token, kind in zip(tokens, types, strict=True) if kind == wanted]
        core.add_tokens([AddedToken(token, normalized=False, special=special) for token in added])
    named = {name: _named(fields, name) for name in ("bos", "eos", "padding")}
    if named["bos"] and fields.get("tokenizer.ggml.add_bos_token"):
        bos = named["bos"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, core.token_to_id(bos))]
        )
    if named["eos"] is None:
        raise HoneError(f"{file}: tokenizer.ggml.eos_token_id is missing, so nothing would end a completion")
    return tokenizer.Tokenizer(
        core, eos=named["eos"], pad=named["padding"], bos=named["bos"],
        chat_template=fields.get("tokenizer.chat_template"),
    )  # fmt: skip


def _named(fields: dict[str, Any], name: str) -> str | None:
    index = fields.get(f"tokenizer.ggml.{name}_token_id")
    return None if index is None else str(fields["tokenizer.ggml.tokens"][index])
