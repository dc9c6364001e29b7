"""The conformer's convolution module (Gulati et al. 2020, arXiv:2005.08100, section 2.2, figure 2).

Shapes: B batch, T' encoder frames, D model dim.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from asr.model.batch_norm import MaskedBatchNorm
from asr.model.dropout import Dropout


class DepthwiseConvolution(nn.Conv1d):
    """A filter over time for each channel, (B, T', C) to (B, T', C); its input must be zero in the padding."""

    bias: Tensor  # torch types it as optional

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, input: Tensor) -> Tensor:
        """Filter over time, which is torch's last dimension and ours before last."""
        x = input.transpose(1, 2)  # (B, C, T'), channels still side by side in memory
        if x.device.type != "cpu":
            return super().forward(x).transpose(1, 2)
        # As an image of height one, x is already in the layout that the CPU's kernels like best: three times as fast.
        padding = (0, self.kernel_size[0] // 2)
        x = functional.conv2d(x[:, :, None], self.weight[:, :, None], self.bias, padding=padding, groups=self.groups)
        return x[:, :, 0].transpose(1, 2)  # (B, C, 1, T') -> (B, T', C)


class ConvolutionModule(nn.Module):
    """Pointwise, gate, depthwise over time, norm, swish, pointwise: sees `kernel` neighbouring frames.

    The padding is cleared between the gate and the depthwise convolution: clearing the module's input is not enough,
    because the first pointwise layer writes its bias into the padding again. The paper's norm is `batch`; `layer` needs
    no running statistics and treats an utterance the same in any batch, in training, too.

    Args:
        dim: model dim D.
        kernel: frames seen by the depthwise convolution, odd.
        dropout: chance of dropping an output in training.
        norm: `layer` or `batch`.
    """

    def __init__(self, dim: int, kernel: int, dropout: float, norm: str = "layer") -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = DepthwiseConvolution(dim, kernel)
        self.norm = MaskedBatchNorm(dim) if norm == "batch" else nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Filter x of shape (B, T', D) over time; mask (B, T') is True at valid frames."""
        gated = functional.glu(self.expand(x), dim=-1) * mask[:, :, None]  # (B, T', D)
        filtered = self.depthwise(gated)  # (B, T', D)
        normal = self.norm(filtered, mask) if isinstance(self.norm, MaskedBatchNorm) else self.norm(filtered)
        return self.dropout(self.project(functional.silu(normal)))
