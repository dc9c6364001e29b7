"""The recogniser: waveforms in, CTC posteriors and decoder scores out.

    waveform (B, S) ─ LogMel ─ FeatureNorm ─ [SpecAugment] ─ Encoder ─┬─ CTC head ─ log-probabilities (B, T', V)
                       (B, T, M)                         (B, T', D)   └─ Decoder ── logits (B, U, V)
                                                                             ↑
                                                                       tokens (B, U)

In training with CR-CTC two views of each utterance go through from SpecAugment on: B is then 2B.

Shapes: B batch, S samples, T feature frames, M mel bins, T' encoder frames, U tokens, D model dim, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from asr.features import FRAME_SHIFT, FeatureNorm, LogMel, spec_augment
from asr.losses import Losses, attention_loss, consistency_loss, ctc_loss, decoder_inputs, infeasible
from asr.model.config import ModelConfig
from asr.model.decoder import Decoder
from asr.model.encoder import Encoder
from asr.samples import SAMPLE_RATE
from asr.tokenizer import Tokenizer


class Batch(NamedTuple):
    """Utterances side by side, padded with zeros."""

    ids: list[str]
    waveform: Tensor
    """Mono samples at 16 kHz, shape (B, S), float32."""
    lengths: Tensor
    """Samples of each row, shape (B,), int64."""
    tokens: Tensor
    """Target texts, shape (B, U), int64."""
    token_lengths: Tensor
    """Tokens of each text, shape (B,), int64."""
    seeds: Tensor
    """One seed for each utterance's random augmentation, shape (B,), int64."""


class Recognizer(nn.Module):
    """Front end, encoder, CTC head and decoder, with the tokenizer that names their outputs.

    Args:
        config: sizes of every part.
        tokenizer: its size is the vocabulary V.

    Example:
        >>> import torch
        >>> from asr.model.config import DecoderConfig, EncoderConfig, ModelConfig
        >>> from asr.tokenizer import TokenizerConfig, train_tokenizer
        >>> tokenizer = train_tokenizer(["one two three"], TokenizerConfig(kind="char"))
        >>> config = ModelConfig(encoder=EncoderConfig(layers=1, dim=32), decoder=DecoderConfig(layers=1))
        >>> model = Recognizer(config, tokenizer).eval()
        >>> waveform, lengths = torch.randn(2, 16_000), torch.tensor([16_000, 8_000])  # one second and a half
        >>> encoder_out, frames = model.encode(waveform, lengths)
        >>> encoder_out.shape, frames.tolist()
        (torch.Size([2, 26, 32]), [26, 13])
        >>> model.ctc_log_probs(encoder_out).shape == (2, 26, len(tokenizer))
        True
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.log_mel = LogMel(config.mels)
        self.norm = FeatureNorm(config.mels)
        self.encoder = Encoder(config.mels, config.encoder)
        self.ctc_head = nn.Linear(config.encoder.dim, len(tokenizer))
        self.decoder = Decoder(len(tokenizer), config.encoder.dim, config.decoder)

    @property
    def frame_seconds(self) -> float:
        """Seconds from one encoder frame to the next."""
        return self.config.encoder.subsampling * FRAME_SHIFT / SAMPLE_RATE

    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Listen.

        Args:
            waveform: mono samples at 16 kHz, shape (B, S), float32, zero in the padding.
            lengths: samples of each row, shape (B,).

        Returns:
            encoder_out of shape (B, T', D) and lengths in encoder frames (B,).
        """
        return self.encoder(*self._features(waveform, lengths))

    def ctc_log_probs(self, encoder_out: Tensor) -> Tensor:
        """Give each encoder frame's log-probabilities: (B, T', D) to (B, T', V), float32."""
        return self.ctc_head(encoder_out).float().log_softmax(dim=-1)

    def loss(self, batch: Batch) -> Losses:
        """Compare both heads with the transcripts; SpecAugment is on while training.

        With CR-CTC each utterance is heard twice, under different masks, in one batch of 2B rows.

        Args:
            batch: utterances and their texts.

        Returns:
            Sums over the batch.
        """
        options = self.config.loss
        features, frames = self._features(batch.waveform, batch.lengths)
        tokens, lengths, seeds, views = batch.tokens, batch.token_lengths, batch.seeds, 1
        if self.training and options.cr_ctc_weight:
            views, seeds = 2, torch.cat((seeds, ~seeds))
            features, frames = features.repeat(2, 1, 1), frames.repeat(2)
            tokens, lengths = tokens.repeat(2, 1), lengths.repeat(2)
        if self.training:
            features = spec_augment(features, frames, seeds, self.config.spec_augment)
        outputs, frames = self.encoder.outputs(features, frames, options.intermediate_layers)
        *early, log_probs = [self.ctc_log_probs(output) for output in outputs]  # (views x B, T', V) each
        logits = self.decoder(decoder_inputs(tokens), outputs[-1], frames)  # (views x B, U + 1, V)

        zero = log_probs.new_zeros(())
        attention = attention_loss(logits, tokens, lengths, options.label_smoothing) / views
        ctc = ctc_loss(log_probs, frames, tokens, lengths) / views
        intermediate = sum((ctc_loss(each, frames, tokens, lengths) for each in early), zero)
        intermediate = intermediate / (max(1, len(early)) * views)
        consistency = consistency_loss(log_probs, frames) if views == 2 else zero
        share = options.intermediate_weight if early else 0.0
        listening = (1 - share) * ctc + share * intermediate + options.cr_ctc_weight * consistency
        return Losses(
            total=options.ctc_weight * listening + (1 - options.ctc_weight) * attention,
            ctc=ctc.detach(),
            attention=attention.detach(),
            tokens=batch.token_lengths.sum(),
            infeasible=infeasible(frames, tokens, lengths).sum() // views,
            intermediate=intermediate.detach(),
            consistency=consistency.detach(),
        )

    def _features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised log-mel features (B, T, M) and their lengths (B,)."""
        features, frames = self.log_mel(waveform, lengths)
        return self.norm(features, frames), frames
