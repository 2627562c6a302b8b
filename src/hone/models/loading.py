"""Model folders in the Hugging Face layout, both ways: `config.json`, safetensors, tokenizer, chat template.

Weights are safetensors only; a folder with nothing but pickled weights is refused by name, since unpickling runs code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hone.models.decoder import MODEL_TYPES, Decoder, DecoderConfig
from hone.types import HoneError

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
# The matrices that are one in memory, and their parts on disk.
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
_BLOCKS = {
    "qkv_proj": "self_attn", "o_proj": "self_attn", "q_norm": "self_attn", "k_norm": "self_attn",
    "gate_up_proj": "mlp", "down_proj": "mlp",
}  # fmt: skip
DESCRIPTIONS = ("*.json", "*.jinja", "*.txt", "tokenizer.model")  # what describes a model beside its weights
HEAD = "score.weight"  # of a reward model, in place of the output matrix: [1, H]
AnyDecoder = TypeVar("AnyDecoder", bound=Decoder)
_Tensors = Iterator[tuple[str, Tensor]]


def load_model(folder: Path) -> Decoder:
    """Build the decoder that a folder describes and read its weights, as float32."""
    return _load(folder, Decoder, _fuse(read_tensors(folder), folder))


def load_with_head(folder: Path, make: Callable[[DecoderConfig], AnyDecoder], *, fresh: bool) -> AnyDecoder:
    """Read a reward model or, where `fresh`, also a language model, whose output matrix a head of zeros replaces."""
    return _load(folder, make, _with_head(folder, fresh))


def _load(folder: Path, make: Callable[[DecoderConfig], AnyDecoder], tensors: _Tensors) -> AnyDecoder:
    with torch.device("meta"):
        model = make(read_config(folder))
    config = model.config
    # Copied: where a file holds a tensor would decide its address, and the address the last bits of products.
    state = {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors}
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state.get("embed_tokens.weight", torch.empty(0))
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise HoneError(
            f"{folder}: the weights do not fit config.json: {' '.join(str(error).split())[:300]}"
        ) from error
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    return model.requires_grad_(True)


def save_model(
    model: Decoder, folder: Path, *, dtype: torch.dtype = torch.float32, more: Mapping[str, Any] | None = None
) -> None:
    """Write `config.json`, with what else is given, and `model.safetensors` into a folder that exists."""
    tensors = {name: tensor.detach().to(dtype).contiguous() for name, tensor in _split(model)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_config(model.config, folder, dtype, more)


def copy_model(folder: Path, to: Path, dtype: torch.dtype | None = None) -> None:
    """Copy the weights of a model folder, as `dtype` where given, and all that describes it, whatever its kind."""
    for file in sorted(found for pattern in DESCRIPTIONS for found in folder.glob(pattern)):
        shutil.copyfile(file, to / file.name)
    names = _weight_files(folder)
    if dtype is None:
        for name in names:
            shutil.copyfile(folder / name, to / name)
        return
    for name in names:
        tensors = {key: tensor.to(dtype) for key, tensor in _read_file(folder, name)}
        if any(not tensor.isfinite().all() for tensor in tensors.values()):
            raise HoneError(f"{folder / name}: some weights are not finite as {dtype}; choose another type")
        save_file(tensors, to / name, metadata={"format": "pt"})
    raw = {key: value for key, value in read_raw_config(folder).items() if key != "dtype"}
    raw["torch_dtype"] = str(dtype).removeprefix("torch.")
    (to / "config.json").write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_raw_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        raw = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise HoneError(f"{file}: cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise HoneError(f"{file}: cannot be read: not a JSON object")
    return raw


def read_config(folder: Path) -> DecoderConfig:
    """Read `config.json`; refuse by name what the decoder does not implement."""
    file, raw = folder / "config.json", read_raw_config(folder)
    kind = raw.get("model_type")
    if kind not in MODEL_TYPES:
        raise HoneError(f"{file}: model_type {kind!r} is not supported ({', '.join(MODEL_TYPES)} are)")
    if raw.get("hidden_act", "silu") != "silu":
        raise HoneError(f"{file}: hidden_act {raw['hidden_act']!r} is not supported (silu is)")
    if raw.get("use_sliding_window"):
        raise HoneError(f"{file}: sliding-window attention is not supported")
    try:
        heads = raw["num_attention_heads"]
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        return DecoderConfig(
            model_type=kind,
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_hidden_layers=raw["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            max_position_embeddings=raw["max_position_embeddings"],
            rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
            rope_theta=rope.get("rope_theta") or raw.get("rope_theta", 10000.0),
            rope_scaling=_scaling(rope),
            tie_word_embeddings=raw.get("tie_word_embeddings", False),
            attention_bias=raw.get("attention_bias", False),
            mlp_bias=raw.get("mlp_bias", False),
        )
    except KeyError as error:
        raise HoneError(f"{file}: {error.args[0]} is missing") from error


def write_config(
    config: DecoderConfig, folder: Path, dtype: torch.dtype, more: Mapping[str, Any] | None = None
) -> None:
    rope = {"rope_type": "default", **(config.rope_scaling or {}), "rope_theta": config.rope_theta}
    raw = {
        "architectures": [_ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": dict(config.rope_scaling) if config.rope_scaling else None,
        "rope_parameters": rope,  # the name of the two above since transformers 5
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "use_sliding_window": False,
        "torch_dtype": str(dtype).removeprefix("torch."),
        **(more or {}),
    }
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", "utf-8")


def checksum(model: Decoder) -> str:
    """Return a short digest of the weights: equal digests mean equal bits."""
    digest = hashlib.blake2b(digest_size=8)
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _scaling(rope: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = rope.get("rope_type") or rope.get("type", "default")
    rest = {key: value for key, value in rope.items() if key not in ("type", "rope_type", "rope_theta")}
    return None if kind == "default" else {"rope_type": kind, **rest}


def _weight_files(folder: Path) -> list[str]:
    names = _listed_files(folder)
    for name in names:
        if Path(name).name != name:
            raise HoneError(f"{folder}: its index names the file {name!r}, which is not in the folder")
        if not (folder / name).is_file():
            pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern)]
            note = f"; {pickled[0]} is pickled, and unpickling runs code: convert it to safetensors" if pickled else ""
            raise HoneError(f"{folder}: no {name} there{note}")
    return names


def _listed_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    try:
        return sorted({str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HoneError(f"{index}: damaged: {error!r}") from error


def read_tensors(folder: Path) -> _Tensors:
    """Yield a folder's weights as they are stored; refuse pickled ones by name."""
    for name in _weight_files(folder):
        yield from _read_file(folder, name)


def weights_dtype(folder: Path) -> torch.dtype:
    """Return the type that a folder's matrices are stored in."""
    return next((tensor.dtype for _, tensor in read_tensors(folder) if tensor.ndim > 1), torch.float32)


def _read_file(folder: Path, name: str) -> _Tensors:
    try:
        with safe_open(folder / name, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                yield key, file.get_tensor(key)
    except SafetensorError as error:
        raise HoneError(f"{folder / name}: damaged: {error}") from error


def _with_head(folder: Path, fresh: bool) -> _Tensors:
    found = False
    for name, tensor in _fuse(read_tensors(folder), folder):
        found = found or name == HEAD
        if name != "lm_head.weight":
            yield name, tensor
    if not found and not fresh:
        raise HoneError(f"{folder}: no {HEAD} there, so it is no reward model but a language model")
    if not found:
        yield HEAD, torch.zeros(1, read_config(folder).hidden_size)


def _fuse(tensors: _Tensors, folder: Path) -> _Tensors:
    """Rename from the Hugging Face layout and join the parts of fused matrices."""
    owners = {part: fused for fused, parts in _FUSED.items() for part in parts}
    waiting: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors:
        name = name.removeprefix("model.").replace(".self_attn.", ".").replace(".mlp.", ".")
        if name.endswith("rotary_emb.inv_freq"):
            continue
        stem, _, kind = name.rpartition(".")
        layer, _, part = stem.rpartition(".")
        if part not in owners:
            yield name, tensor
            continue
        key = f"{layer}.{owners[part]}.{kind}"
        parts = waiting.setdefault(key, {})
        parts[part] = tensor
        if len(parts) == len(_FUSED[owners[part]]):
            if len({part.shape[1:] for part in parts.values()}) > 1:
                raise HoneError(f"{folder}: the parts of {key} are of different widths")
            yield key, torch.cat([parts[part] for part in _FUSED[owners[part]]])
            del waiting[key]
    if waiting:
        raise HoneError(f"{folder}: parts of {sorted(waiting)[0]} are missing")


def _split(model: Decoder) -> _Tensors:
    """The reverse of `_fuse`."""
    config = model.config
    sizes = {"qkv_proj": list(config.qkv_sizes), "gate_up_proj": [config.intermediate_size] * 2}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            if not config.tie_word_embeddings:
                yield name, tensor
            continue
        if name == HEAD:
            yield name, tensor
            continue
        stem, _, kind = name.rpartition(".")
        layer, _, part = stem.rpartition(".")
        prefix = f"model.{layer}.{_BLOCKS[part]}." if part in _BLOCKS else f"model.{layer}." if layer else "model."
        if part in _FUSED:
            for piece, block in zip(_FUSED[part], tensor.split(sizes[part]), strict=True):
                yield f"{prefix}{piece}.{kind}", block.clone()
        else:
            yield f"{prefix}{part}.{kind}", tensor
