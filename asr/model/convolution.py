"""The conformer's convolution module (Gulati et al. 2020, arXiv:2005.08100, section 2.2, figure 2).

Shapes: B batch, T' encoder frames, D model dim.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ConvolutionModule(nn.Module):
    """Pointwise, gate, depthwise over time, norm, swish, pointwise: sees `kernel` neighbouring frames.

    The padding is cleared between the gate and the depthwise convolution: clearing the module's input is not enough,
    because the first pointwise layer writes its bias into the padding again. LayerNorm stands where the paper has
    BatchNorm: it needs no running statistics and treats an utterance the same in any batch.

    Args:
        dim: model dim D.
        kernel: frames seen by the depthwise convolution, odd.
        dropout: chance of dropping an output in training.
    """

    def __init__(self, dim: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Filter x of shape (B, T', D) over time; mask (B, T') is True at valid frames."""
        gated = functional.glu(self.expand(x), dim=-1) * mask[:, :, None]  # (B, T', D)
        filtered = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)  # (B, T', D)
        return self.dropout(self.project(functional.silu(self.norm(filtered))))
