from __future__ import annotations

import pytest
import torch

from asr.model.attention import KeyValue, MultiHeadAttention, additive_score, weigh
from asr.model.relative import RelativeAttention, rel_shift, sinusoids
from asr.model.rotary import rotate, rotations


def masks(queries: int) -> dict[str, torch.Tensor | None]:
    """Masks over seven keys; in `nothing` the second row may see none of them."""
    lengths = {"padding": [7, 3], "nothing": [4, 0]}
    padded = {name: torch.arange(7) < torch.tensor(each)[:, None] for name, each in lengths.items()}
    causal = torch.ones(queries, 7, dtype=torch.bool).tril()
    return {"none": None, "causal": causal} | {name: mask[:, None, None, :] for name, mask in padded.items()}


def gradients(attention: MultiHeadAttention, x, memory, mask, positions, explicit: bool):
    """Output, weights, and the gradients of inputs and parameters."""
    x, memory = x.clone().requires_grad_(), memory.clone().requires_grad_()
    out, weights = attention(x, attention.project(memory, positions), mask, positions, return_weights=explicit)
    assert (weights is not None) == explicit
    wanted = [x, memory, *attention.parameters()]
    return out, torch.autograd.grad(out.float().square().sum(), wanted)


@pytest.mark.parametrize("name", ["none", "padding", "causal", "nothing"])
@pytest.mark.parametrize("kind", ["cross", "rotary", "relative"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_the_fused_kernel_equals_score_weigh_aggregate(name, kind, dtype, tolerance):
    torch.manual_seed(0)
    queries = 5 if kind == "cross" else 7
    attention = (RelativeAttention if kind == "relative" else MultiHeadAttention)(16, 4).to(dtype)
    x, memory = torch.randn(2, queries, 16, dtype=dtype), torch.randn(2, 7, 16, dtype=dtype)
    tables = {"rotary": rotations(7, 4, x.device), "relative": sinusoids(7, 16, x.device).to(dtype)}
    inputs = (x, memory, masks(queries)[name], tables.get(kind))
    fused, fused_gradients = gradients(attention, *inputs, explicit=False)
    explicit, explicit_gradients = gradients(attention, *inputs, explicit=True)
    torch.testing.assert_close(fused, explicit, atol=tolerance, rtol=tolerance)
    for one, other in zip(fused_gradients, explicit_gradients, strict=True):
        assert torch.isfinite(one).all()
        scale = max(1.0, other.abs().max().item())  # rounding grows with the numbers that are summed
        torch.testing.assert_close(one / scale, other / scale, atol=tolerance, rtol=tolerance)


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


@pytest.mark.parametrize("scoring", ["dot", "additive"])
@pytest.mark.parametrize("explicit", [False, True])
def test_a_row_that_may_see_nothing_gives_zeros_and_finite_gradients(scoring, explicit):
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, scoring)
    mask = torch.tensor([[True, False, False], [False, False, False]])[:, None, None, :]
    x = torch.randn(2, 3, 8, requires_grad=True)
    out, weights = attention(x, attention.project(x), mask, return_weights=explicit)
    torch.testing.assert_close(out[1], attention.out.bias.expand(3, 8))  # the context is zero, the bias remains
    out.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    if explicit:
        assert weights is not None
        assert weights[1].sum() == 0
        torch.testing.assert_close(weights[0].sum(-1), torch.ones(2, 3))


def test_additive_scores_equal_bahdanaus_formula():
    torch.manual_seed(0)
    query, key, energy = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 6, 5), torch.randn(3, 5)
    scores = additive_score(query, key, energy)
    assert scores.shape == (2, 3, 4, 6)
    for row, head, i, j in torch.cartesian_prod(*map(torch.arange, scores.shape)).tolist():
        expected = sum(energy[head, c] * torch.tanh(query[row, head, i, c] + key[row, head, j, c]) for c in range(5))
        torch.testing.assert_close(scores[row, head, i, j], torch.as_tensor(expected), atol=1e-6, rtol=1e-5)


def test_additive_attention_learns_its_energies():
    attention = MultiHeadAttention(8, 2, "additive")
    x = torch.randn(1, 4, 8)
    attention(x, attention.project(x))[0].square().sum().backward()
    assert attention.energy is not None
    assert attention.energy.grad is not None
    assert attention.energy.grad.abs().sum() > 0
    assert MultiHeadAttention(8, 2).energy is None


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


@pytest.mark.parametrize("time", [1, 2, 7])
def test_rel_shift_equals_a_gather(time):
    x = torch.randn(2, 3, time, 2 * time - 1)
    distance = torch.arange(time)[:, None] - torch.arange(time)  # i - j
    columns = (time - 1 - distance).expand(2, 3, time, time)
    torch.testing.assert_close(rel_shift(x), x.gather(-1, columns), atol=0, rtol=0)


def test_relative_weights_equal_the_papers_formula():
    """Equation of section 3.3, one pair of query and key at a time."""
    torch.manual_seed(0)
    attention = RelativeAttention(8, 2)
    torch.nn.init.normal_(attention.content_bias)
    torch.nn.init.normal_(attention.distance_bias)
    x = torch.randn(1, 5, 8)
    _, weights = attention(x, attention.project(x), None, sinusoids(5, 8, x.device), return_weights=True)
    for head in range(2):
        channels = slice(4 * head, 4 * head + 4)
        scores = torch.zeros(5, 5)
        for i in range(5):
            for j in range(5):
                angles = (i - j) / 10_000 ** (torch.arange(0, 8, 2) / 8)
                distance = attention.distance(torch.cat((angles.sin(), angles.cos())))[channels]
                query, key = attention.query(x[0, i])[channels], attention.key(x[0, j])[channels]
                content = (query + attention.content_bias[head, 0]) @ key
                scores[i, j] = (content + (query + attention.distance_bias[head, 0]) @ distance) / 4**0.5
        assert weights is not None
        torch.testing.assert_close(weights[0, head], scores.softmax(-1), atol=1e-5, rtol=1e-5)


def test_keys_and_values_can_be_made_once_and_used_often():
    attention = MultiHeadAttention(8, 2)
    memory = attention.project(torch.randn(2, 5, 8))
    assert isinstance(memory, KeyValue)
    queries = torch.randn(2, 3, 8)
    together, _ = attention(queries, memory)
    one_by_one = torch.cat([attention(queries[:, i : i + 1], memory)[0] for i in range(3)], dim=1)
    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=1e-5)
