"""Products with weight matrices, attention and what lies between, by loops in C that are compiled at their first use.

They are for float32 on a CPU. Where there is no C compiler with OpenMP, or no cache to keep what it makes, `library` is
None, and torch's operations do the same.

Axes: N rows, L layers, H hidden, I intermediate, V vocabulary, A attention heads, K key/value heads, D head size, P
positions.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from hone.places import user_cache

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.c", "products.c", "attention.c", "decode.c"))
HEADER = Path(__file__).with_name("kernels.h")
# Not -ffast-math, which takes all numbers for finite; and no jump threading, which makes each clamp a copy of the loop.
FLAGS = (
    "-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fno-thread-jumps",
    "-shared", "-fPIC",
)  # fmt: skip
_ARGUMENTS = {
    "rms_norm": [c_void_p] * 3 + [c_int64] * 2 + [c_float, c_int],
    "rms_norm_backward": [c_void_p] * 5 + [c_int64] * 2 + [c_float, c_int],
    "swiglu": [c_void_p] * 2 + [c_int64] * 2 + [c_int],
    "swiglu_backward": [c_void_p] * 3 + [c_int64] * 2 + [c_int],
    "turn_heads": [c_void_p] * 3 + [c_int64] * 4 + [c_int],
    "decode": [c_void_p] * 8 + [c_int64] * 10 + [c_float, c_int],
    "token_figures": [c_void_p] * 5 + [c_int64] * 2 + [c_int],
    "logit_gradients": [c_void_p] * 4 + [c_int64] * 2 + [c_int],
    "draw": [c_void_p] * 4 + [c_int64] * 2 + [c_int],
    "pack": [c_void_p] * 2 + [c_int64] * 4 + [c_int],
    "attention": [c_void_p] * 4 + [c_int64] * 4 + [c_int],
    "attention_backward": [c_void_p] * 6 + [c_int64] * 5 + [c_int],
    "multiply": [c_void_p] * 4 + [c_int64] * 3 + [c_int] * 2,
}


def usable(x: Tensor) -> bool:
    """Whether there are loops for a tensor: one of float32 on a CPU."""
    return x.is_cpu and x.dtype == torch.float32 and library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled loops, from the user's cache but at their first use; None where they cannot be compiled."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    texts = [source.read_bytes() for source in (HEADER, *SOURCES)]
    content = [*texts, compiler.encode(), " ".join(FLAGS).encode(), _processor().encode()]
    file = user_cache() / "kernels" / f"{hashlib.sha256(b'/'.join(content)).hexdigest()[:16]}.so"
    if not (file.is_file() or _compile(compiler, file)):
        return None
    found = ctypes.CDLL(str(file))  # which uses the threads of torch: both ask for libgomp.so.1
    for name, arguments in _ARGUMENTS.items():
        getattr(found, name).argtypes, getattr(found, name).restype = arguments, None
    return found


def _compile(compiler: str, file: Path) -> bool:
    """Compile into the cache, unless it cannot be done; another process may do the same."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            made = Path(folder) / file.name
            command = [compiler, *FLAGS, "-o", str(made), *map(str, SOURCES), "-lm"]
            if subprocess.run(command, capture_output=True).returncode:
                return False  # such as macOS's compiler, which has no OpenMP
            made.replace(file)
    except OSError:  # a home that is read-only or full
        return False
    return True


def _processor() -> str:
    """Return what the compiled code is for: a home folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return f"{platform.machine()} {platform.processor()} {platform.platform()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "") + platform.machine()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x [..., H] normalised by its root mean square, times `weight` [H]."""
    x, size = x.contiguous(), len(weight)
    out = torch.empty_like(x)
    _call("rms_norm", (x, weight, out), x.numel() // size, size, eps)
    return out


def rms_norm_backward(x: Tensor, weight: Tensor, grad: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the gradients of `x` [..., H] and `weight` [H], of that of the result [..., H]."""
    x, grad = x.contiguous(), grad.contiguous()
    to_x, sums = torch.empty_like(x), x.new_zeros(torch.get_num_threads(), len(weight))
    _call("rms_norm_backward", (x, weight, grad, to_x, sums), x.numel() // len(weight), len(weight), eps)
    return to_x, sums.sum(0)


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up [..., I] of `gate_up` [..., 2I]."""
    size = gate_up.shape[-1] // 2
    out = gate_up.new_empty((*gate_up.shape[:-1], size))
    _call("swiglu", (gate_up, out), out.numel() // size, size)
    return out


def swiglu_backward(gate_up: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of `gate_up` [..., 2I], of that of the result [..., I]."""
    found, size = torch.empty_like(gate_up), grad.shape[-1]
    _call("swiglu_backward", (gate_up, grad.contiguous(), found), grad.numel() // size, size)
    return found


def turn_(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn head vectors [N, heads, D], whose rows may lie apart, in place by angles [N, D/2]."""
    num_rows, heads, size = x.shape
    _call("turn_heads", (x, cos, sin), num_rows, heads, size, x.stride(0))


def decode(
    x: Tensor, layers: Tensor, norm: Tensor, cos: Tensor, sin: Tensor, store: Tensor, lengths: Tensor, longest: int,
    heads: int, inner: int, eps: float,
) -> Tensor:  # fmt: skip
    """Return the hidden states [N, H] of one new token a row, of their vectors `x` [N, H], which it works in.

    `layers` [L, 12] are the addresses of the layers' weights, in the order of `decode.c`, `norm` is the last one's,
    `cos` and `sin` are [positions, D/2]. The tokens' keys and values come to the places `lengths` [N], less than
    `longest`, of `store` [L, 2, N or more, K, P, D]. `heads` is A, `inner` I.

    Raises `IndexError` where the store or the angles lack such places.
    """
    num_layers, _, max_rows, kv_heads, positions, size = store.shape
    if longest > min(positions, len(cos)) or len(x) > max_rows or len(layers) > num_layers:
        raise IndexError(
            f"{len(x)} tokens up to place {longest - 1} of {len(layers)} layers, for a cache {list(store.shape)} and "
            f"{len(cos)} positions"
        )
    out = torch.empty_like(x)
    sizes = num_layers, *x.shape, inner, heads, kv_heads, size, positions, max_rows, longest
    _call("decode", (x, layers, norm, cos, sin, store, lengths, out), *sizes, eps)
    return out


def attention(qkv: Tensor, runs: Tensor, heads: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return what each token attends to, [T, A * D], and the logs of its sums of e^score, [T, A].

    `qkv` [T, (A + 2K) * D] is turned already; `heads` are A and K. `runs` [3, R] are the first tokens, the lengths and
    the parents of the runs, a parent being the number of an earlier run that has none itself, or -1.
    """
    num_q, num_kv = heads
    size = qkv.shape[1] // (num_q + 2 * num_kv)
    out, normalisers = qkv.new_empty(len(qkv), num_q * size), qkv.new_empty(len(qkv), num_q)
    _call("attention", (qkv, runs, out, normalisers), runs.shape[1], num_q, num_kv, size)
    return out, normalisers


def attention_backward(
    qkv: Tensor, runs: Tensor, out: Tensor, normalisers: Tensor, grad: Tensor, heads: tuple[int, int]
) -> Tensor:
    """Return the gradient of `qkv`, of that of the result [T, A * D]; the rest is as `attention` takes and gives it."""
    num_q, num_kv = heads
    found, size = torch.empty_like(qkv), qkv.shape[1] // (num_q + 2 * num_kv)
    tensors = qkv, runs, out, normalisers, grad.contiguous(), found
    _call("attention_backward", tensors, len(qkv), runs.shape[1], num_q, num_kv, size)
    return found


def token_figures(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, each [N], the targets' log-probabilities of logits [N, V], the entropies, and the normalisers.

    The normaliser is the log of the sum of the exponentials. Raises `IndexError` where a target is no token.
    """
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[1]:
        raise IndexError(f"a target is not among the {logits.shape[1]} tokens of the vocabulary")
    logprobs, entropies, normalisers = logits.new_empty(3, len(logits))
    _call("token_figures", (logits, targets, logprobs, entropies, normalisers), *logits.shape)
    return logprobs, entropies, normalisers


def logit_gradients_(logits: Tensor, normalisers: Tensor, targets: Tensor, grads: Tensor) -> None:
    """Turn logits [N, V] in place into their gradients, of those of the targets' log-probabilities [N]."""
    _call("logit_gradients", (logits, normalisers, targets, grads.contiguous()), *logits.shape)


def draw(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a token a row from logits [N, V] by uniform numbers [N]; return them [N] and their log-probabilities [N].

    The log-probability is NaN where the logits of a row are not finite.
    """
    tokens, logprobs = torch.empty(len(logits), dtype=torch.int64), torch.empty(len(logits))
    _call("draw", (logits.contiguous(), uniforms, tokens, logprobs), *logits.shape)
    return tokens, logprobs


def pack(weight: Tensor) -> Tensor:
    """Return the panels [C / width, K, width] of a weight [C, K]; zeros fill the last one."""
    columns, depth = weight.shape
    width = getattr(library(), "panel_width")()  # noqa: B009, for mypy as in `_call`
    panels = weight.new_empty(-(-columns // width), depth, width)
    _call("pack", (weight, panels), columns, depth, *weight.stride())
    return panels


def multiply(x: Tensor, panels: Tensor, columns: int, bias: Tensor | None) -> Tensor:
    """Return `x weight^T + bias` [..., C] of x [..., K] and the panels of a weight [C, K]."""
    x, depth = x.contiguous(), panels.shape[1]
    if not usable(x) or x.shape[-1] != depth:
        raise ValueError(
            f"x {list(x.shape)}, {x.dtype} on {x.device}, for a float32 matrix of depth {depth} on the CPU"
        )
    if bias is not None and not (usable(bias) and bias.shape == (columns,) and bias.is_contiguous()):
        raise ValueError(f"a bias {list(bias.shape)}, {bias.dtype} on {bias.device}, for {columns} columns of float32")
    out = x.new_empty((*x.shape[:-1], columns))
    _call("multiply", (x, panels, bias, out), x.numel() // depth, columns, depth, False)
    return out


def _call(name: str, tensors: tuple[Tensor | None, ...], *numbers: float) -> None:
    """Call a loop with tensors, whose memory it takes as its comment in C says, and numbers."""
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    getattr(library(), name)(*pointers, *numbers, torch.get_num_threads())
