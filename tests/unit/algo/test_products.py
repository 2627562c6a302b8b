"""Products with weight matrices against torch's own, with their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hone.algo import kernels
from hone.algo.products import linear, prepack

K, N = 24, 40


def tensors(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(size, generator=generator, dtype=dtype) for size in (shape, (N, K), (N,)))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("shape", [(1, K), (7, K), (300, K), (2, 3, K), (2, 1, 5, K)])
def test_values_and_gradients(shape: tuple[int, ...], with_bias: bool, dtype: torch.dtype) -> None:
    found = []
    for product in (linear, F.linear):
        x, weight, bias = (tensor.requires_grad_() for tensor in tensors(shape, dtype))
        inputs = (x, weight, bias) if with_bias else (x, weight)
        out = product(*inputs)
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
        found.append((out, *torch.autograd.grad(out, inputs, upstream)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_what_is_frozen_gets_no_gradient() -> None:
    for trained in range(3):
        inputs = tensors((5, K))
        inputs[trained].requires_grad_()
        linear(*inputs).square().sum().backward()
        expected = tensors((5, K))
        expected[trained].requires_grad_()
        F.linear(*expected).square().sum().backward()
        torch.testing.assert_close(inputs[trained].grad, expected[trained].grad, rtol=1e-5, atol=1e-3)
        assert all(tensor.grad is None for n, tensor in enumerate(inputs) if n != trained)
    assert not linear(*tensors((5, K))).requires_grad


def test_memory_need_not_be_in_order() -> None:
    x, weight, bias = tensors((6, K))
    wide = torch.stack((x, x), -1)[..., 0]
    turned = weight.t().contiguous().t()
    assert not wide.is_contiguous()
    assert not turned.is_contiguous()
    torch.testing.assert_close(linear(wide, turned, bias), F.linear(x, weight, bias), rtol=1e-5, atol=1e-5)


@pytest.fixture(params=["loops", "oneDNN"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Multiply by the loops in C, or without them."""
    if request.param == "oneDNN":
        if not torch.backends.mkldnn.is_available():
            pytest.skip("this torch has no oneDNN")
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("no C compiler with OpenMP here")
    return request.param


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 17, 96, 97, 255, 900])
@pytest.mark.parametrize(("columns", "depth"), [(40, 24), (1, 5), (33, 320), (150, 700)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_prepacked_matrix_serves_any_shape(way: str, rows: int, columns: int, depth: int, with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (torch.randn(size, generator=generator) for size in ((rows, depth), (columns, depth), (columns,)))
    given = bias if with_bias else None
    expected = F.linear(x.double(), weight.double(), bias.double() if with_bias else None).float()
    for matrix in (weight, weight.t().contiguous().t()):
        torch.testing.assert_close(prepack(matrix)(x, given), expected, rtol=1e-5, atol=1e-4)


def test_a_prepacked_matrix_is_a_copy(way: str) -> None:
    x, weight, _ = tensors((3, K))
    product, expected = prepack(weight), x @ weight.t()
    weight.zero_()
    torch.testing.assert_close(product(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(kernels.library() is None, reason="no C compiler with OpenMP here")
def test_a_row_by_itself_has_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(200, 700, generator=generator), torch.randn(150, 700, generator=generator)
    product = prepack(weight)
    assert torch.equal(product(x), torch.cat([product(row) for row in x.split(1)]))


def test_a_product_of_the_wrong_shape_or_type_is_refused() -> None:
    product = prepack(tensors((3, K))[1])
    for x in (torch.randn(3, K + 1), torch.randn(3, K, dtype=torch.float64)):
        with pytest.raises((ValueError, RuntimeError)):
            product(x)
    for bias in (torch.randn(N + 1), torch.randn(N, dtype=torch.float64)):
        with pytest.raises((ValueError, RuntimeError)):
            product(torch.randn(3, K), bias)


def test_double_precision_is_left_to_torch() -> None:
    x, weight, bias = tensors((3, K), torch.float64)
    assert torch.equal(prepack(weight)(x, bias), F.linear(x, weight, bias))
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
