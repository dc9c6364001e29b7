"""Fewer, wider frames: convolutions over time and frequency that keep every 4th or every 8th frame.

Four times: two full 3 x 3 convolutions of stride 2 (Dong et al. 2018, "Speech-Transformer").
Eight times: one full and two depthwise-separable ones (Rekesh et al. 2023, FastConformer, arXiv:2305.05084).

Shapes: B batch, T feature frames, M mel bins, C channels, T' encoder frames, D model dim.
"""

from __future__ import annotations

from torch import Tensor, nn

from asr.features import length_mask
from asr.model.dropout import Dropout


def subsampled_length(frames: Tensor, factor: int) -> Tensor:
    """Count encoder frames: halved, rounded up, once for each doubling in the factor; shape and dtype as given."""
    for _ in range(factor.bit_length() - 1):
        frames = (frames + 1) // 2
    return frames


class Subsampling(nn.Module):
    """Strided convolutions, each followed by a clearing of the padding and ReLU, then a projection to the model dim.

    Args:
        mels: mel bins M of the features.
        dim: model dim D.
        factor: 4 or 8.
        channels: channels C of the convolutions.
        dropout: chance of dropping an output in training.
    """

    def __init__(self, mels: int, dim: int, factor: int, channels: int, dropout: float) -> None:
        super().__init__()
        halvings = factor.bit_length() - 1
        later = _halving if factor == 4 else _separable_halving
        self.halvings = nn.ModuleList(
            [_halving(1, channels)] + [later(channels, channels) for _ in range(halvings - 1)]
        )
        bins = mels
        for _ in range(halvings):
            bins = (bins + 1) // 2
        self.project = nn.Linear(channels * bins, dim)
        self.dropout = Dropout(dropout)
        # torch's own start shrinks the signal each time and adds random biases: at 8x little but these came through.
        for name, parameter in self.halvings.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Shorten features.

        Args:
            features: shape (B, T, M), zero in the padding.
            lengths: frames of each row, shape (B,).

        Returns:
            Shape (B, T', D), and lengths in encoder frames (B,).
        """
        x = features[:, None]  # (B, 1, T, M)
        for halving in self.halvings:
            lengths = subsampled_length(lengths, 2)
            x = halving(x)  # (B, C, T/2, M/2)
            # In place: these are the largest tensors of the model, and the convolution needs its output no more.
            x = x.mul_(length_mask(lengths, x.shape[2])[:, None, :, None]).relu_()
        x = self.project(x.transpose(1, 2).flatten(2))  # (B, T', C x bins) -> (B, T', D)
        return self.dropout(x), lengths


def _halving(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1)


def _separable_halving(inputs: int, outputs: int) -> nn.Module:
    depthwise = nn.Conv2d(inputs, inputs, kernel_size=3, stride=2, padding=1, groups=inputs)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, kernel_size=1))
