"""What a model is made of. These dataclasses are the only source of truth and are what a checkpoint stores."""

from __future__ import annotations

from dataclasses import dataclass, field

from asr.config import check_choice
from asr.errors import ConfigError
from asr.features import FFT_SIZE, SpecAugmentConfig


def _at_least(minimum: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= minimum:  # NaN is not either
            raise ConfigError(f"model: {name} must be at least {minimum}, got {value}")


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ConfigError(f"model: {name} must lie in 0 <= {name} < 1, got {value}")


@dataclass(frozen=True)
class EncoderConfig:
    """The audio side: subsampling, then blocks of self-attention (Gulati et al. 2020, arXiv:2005.08100)."""

    kind: str = "conformer"
    """`conformer`, `e_branchformer` or plain `transformer` blocks."""
    layers: int = 12
    """Blocks."""
    dim: int = 144
    """Width of the encoder and of the decoder."""
    heads: int = 4
    """Attention heads; `dim` must be a multiple of twice as many, for rotary positions."""
    positions: str = "rotary"
    """`rotary` (Su et al. 2021) or `relative`, those of Transformer-XL and of the conformer's paper, slower."""
    feed_forward: int = 576
    """Hidden width of the feed-forward modules."""
    kernel: int = 31
    """Depthwise convolution kernel in encoder frames, odd."""
    norm: str = "layer"
    """Norm of the convolution: `layer`, or `batch` as in the conformer's paper, over valid frames only."""
    gated: int = 864
    """Hidden width of the gated convolution of `e_branchformer`, even; the paper has 6 x dim."""
    subsampling: int = 4
    """Feature frames for each encoder frame: 4 (40 ms) or 8 (80 ms)."""
    subsampling_channels: int = 144
    """Channels of the subsampling convolutions."""
    dropout: float = 0.1
    """Chance of dropping an output of each module (residual dropout), in training."""
    stochastic_depth: float = 0.0
    """Chance of skipping the last block in training; earlier blocks in proportion (Huang et al. 2016), without scaling
    (LayerDrop, Fan et al. 2020, arXiv:1909.11556)."""
    activation_checkpointing: bool = False
    """Keep only the input of each block for the backward pass: much less memory, a third more computing."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("model: encoder.kind", self.kind, ("conformer", "e_branchformer", "transformer"))
        check_choice("model: encoder.positions", self.positions, ("rotary", "relative"))
        check_choice("model: encoder.norm", self.norm, ("layer", "batch"))
        check_choice("model: encoder.subsampling", self.subsampling, (4, 8))
        _at_least(1, layers=self.layers, heads=self.heads, feed_forward=self.feed_forward)
        _at_least(1, kernel=self.kernel, subsampling_channels=self.subsampling_channels)
        _at_least(2, gated=self.gated)
        _share(dropout=self.dropout, stochastic_depth=self.stochastic_depth)
        if self.dim % (2 * self.heads):
            raise ConfigError(f"model: encoder.dim {self.dim} must be a multiple of 2 x heads ({2 * self.heads})")
        if self.kernel % 2 == 0:
            raise ConfigError(f"model: encoder.kernel must be odd, got {self.kernel}")
        if self.gated % 2:
            raise ConfigError(f"model: encoder.gated must be even, got {self.gated}")


@dataclass(frozen=True)
class DecoderConfig:
    """The text side: a pre-norm transformer that looks back at the audio by cross-attention."""

    layers: int = 6
    """Blocks."""
    heads: int = 4
    """Attention heads."""
    feed_forward: int = 576
    """Hidden width of the feed-forward modules."""
    dropout: float = 0.1
    """Dropout after each module."""
    scoring: str = "dot"
    """How cross-attention compares a token with the audio: `dot`, or `additive` (Bahdanau et al. 2015), slower."""

    def __post_init__(self) -> None:
        """Check every field."""
        _at_least(1, layers=self.layers, heads=self.heads, feed_forward=self.feed_forward)
        check_choice("model: decoder.scoring", self.scoring, ("dot", "additive"))
        _share(dropout=self.dropout)


@dataclass(frozen=True)
class LossConfig:
    """How the two heads are weighed in training (Watanabe et al. 2017, "Hybrid CTC/attention architecture")."""

    ctc_weight: float = 0.3
    """Weight of the CTC loss; the attention loss has one minus this."""
    label_smoothing: float = 0.1
    """Probability spread evenly over all tokens in the attention loss (Szegedy et al. 2016)."""
    intermediate_layers: list[int] = field(default_factory=list)
    """Encoder blocks, counted from 1, after which CTC is trained, too (Lee and Watanabe 2021, arXiv:2102.03216)."""
    intermediate_weight: float = 0.3
    """Share of the intermediate layers' mean in the CTC loss, if there are any; the last layer has the rest."""
    cr_ctc_weight: float = 0.0
    """Weight, beside the CTC loss's 1, of the consistency of two differently masked views of each utterance
    (CR-CTC, Yao et al. 2024, arXiv:2410.05101, which has 0.2). Over 0 each step costs twice as much."""

    def __post_init__(self) -> None:
        """Check the shares; a model without CTC is refused, since it rarely learns to listen."""
        if not 0 < self.ctc_weight <= 1:
            raise ConfigError(f"model: loss.ctc_weight must lie in 0 < ctc_weight <= 1, got {self.ctc_weight}")
        _share(label_smoothing=self.label_smoothing, intermediate_weight=self.intermediate_weight)
        _at_least(0, cr_ctc_weight=self.cr_ctc_weight)


@dataclass(frozen=True)
class ModelConfig:
    """A whole recogniser."""

    mels: int = 80
    """Mel bins of the front end."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The audio side."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The text side."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The training objective."""
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    """Masks over the features, in training only."""

    def __post_init__(self) -> None:
        """Check what concerns more than one part."""
        _at_least(8, mels=self.mels)
        if self.mels > FFT_SIZE // 2 + 1:
            raise ConfigError(f"model: mels must be at most {FFT_SIZE // 2 + 1}, the spectrum's, got {self.mels}")
        for layer in self.loss.intermediate_layers:
            if not 1 <= layer < self.encoder.layers:
                last = self.encoder.layers - 1
                raise ConfigError(f"model: loss.intermediate_layers must lie in 1..{last}, below the top, got {layer}")
        masks = self.spec_augment.frequency_masks + self.spec_augment.time_masks
        if self.loss.cr_ctc_weight and not masks:
            raise ConfigError("model: loss.cr_ctc_weight needs spec_augment: without masks both views are the same")
        if self.encoder.dim % (2 * self.decoder.heads):
            raise ConfigError(
                f"model: encoder.dim {self.encoder.dim} must be a multiple of 2 x decoder.heads "
                f"({2 * self.decoder.heads})"
            )
