from __future__ import annotations

import pytest
import torch

from asr.model.attention import KeyValue, MultiHeadAttention, weigh
from asr.model.rotary import rotate, rotations


def masks() -> dict[str, torch.Tensor | None]:
    padding = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])[:, None, None, :]
    return {"none": None, "padding": padding, "causal": torch.ones(5, 7, dtype=torch.bool).tril()}


@pytest.mark.parametrize("name", ["none", "padding", "causal"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_the_fused_kernel_equals_score_weigh_aggregate(name, dtype, tolerance):
    torch.manual_seed(0)
    attention = MultiHeadAttention(16, 4).to(dtype)
    x, memory = torch.randn(2, 5, 16, dtype=dtype), torch.randn(2, 7, 16, dtype=dtype)
    outs, grads = [], []
    for explicit in (False, True):
        query = x.clone().requires_grad_()
        out, weights = attention(query, attention.project(memory), masks()[name], return_weights=explicit)
        out.float().square().sum().backward()
        outs.append(out)
        grads.append(query.grad)
        assert (weights is not None) == explicit
    torch.testing.assert_close(outs[0], outs[1], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(grads[0], grads[1], atol=tolerance * 10, rtol=tolerance * 10)


def test_it_equals_torchs_own_multi_head_attention():
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((ours.query.weight, ours.key.weight, ours.value.weight)))
        theirs.in_proj_bias.copy_(torch.cat((ours.query.bias, torch.zeros(16), ours.value.bias)))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 6, 16)
    out, weights = ours(x, ours.project(x), return_weights=True)
    expected, expected_weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, expected_weights, atol=1e-6, rtol=1e-5)


def test_a_row_that_may_see_nothing_gives_zeros_and_finite_gradients():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2)
    mask = torch.tensor([[True, False, False], [False, False, False]])[:, None, None, :]
    for explicit in (False, True):
        x = torch.randn(2, 3, 8, requires_grad=True)
        out, weights = attention(x, attention.project(x), mask, return_weights=explicit)
        torch.testing.assert_close(out[1], attention.out.bias.expand(3, 8))  # the context is zero, the bias remains
        out.sum().backward()
        assert torch.isfinite(x.grad).all()
        if explicit:
            assert weights is not None
            assert weights[1].sum() == 0
            torch.testing.assert_close(weights[0].sum(-1), torch.ones(2, 3))


def test_weights_sum_to_one():
    weights = weigh(torch.randn(2, 3, 4, 5) * 20, None)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4))


def test_a_rotation_is_multiplication_by_a_complex_number():
    x = torch.randn(1, 1, 9, 8)
    turned = rotate(x, rotations(9, 8, x.device))
    angles = torch.arange(9)[:, None] / 10_000 ** (torch.arange(0, 8, 2) / 8)
    expected = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(turned, torch.cat((expected.real, expected.imag), -1), atol=1e-5, rtol=1e-5)


def test_rotary_scores_depend_on_distance_alone():
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def scored(at: int, other: int) -> torch.Tensor:
        turned = rotate(query, rotations(1, 8, query.device, at))
        return (turned * rotate(key, rotations(1, 8, key.device, other))).sum()

    torch.testing.assert_close(scored(3, 1), scored(103, 101), atol=1e-4, rtol=1e-4)
    assert abs(scored(3, 1) - scored(3, 2)) > 1e-4


def test_keys_and_values_can_be_made_once_and_used_often():
    attention = MultiHeadAttention(8, 2)
    memory = attention.project(torch.randn(2, 5, 8))
    assert isinstance(memory, KeyValue)
    queries = torch.randn(2, 3, 8)
    together, _ = attention(queries, memory)
    one_by_one = torch.cat([attention(queries[:, i : i + 1], memory)[0] for i in range(3)], dim=1)
    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=1e-5)
