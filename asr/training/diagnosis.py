"""Looking at a run while it goes on: sample texts, pictures of both heads, curves, and advice when a head is stuck."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from asr.decoding import Hypothesis
from asr.features import length_mask
from asr.losses import decoder_inputs
from asr.model.inspection import attention_weights, cross_attention, mean_frames, progress
from asr.model.recognizer import Batch
from asr.tokenizer import BLANK
from asr.training.module import RecognizerModule
from asr.training.optimizers import warmup
from asr.training.pictures import draw_curves, draw_heads

log = logging.getLogger(__name__)

SAMPLES = 5
PROGRESS = 0.5  # a head that follows the audio has about 0.9; noise has 0
ONLY_BLANKS = (
    "CTC writes nothing but blanks after %d steps. Most often: the learning rate is too high or the warm-up too short "
    "(optimizer.learning_rate, optimizer.warmup_steps); SpecAugment hides too much of too little data "
    "(model.spec_augment); tokens are too long for the frames (tokenizer.kind=char, model.encoder.subsampling=4); or "
    "the texts do not belong to the audio (asr check)"
)
NO_PROGRESS = (
    "no attention head moves forward through the audio after %d steps (progress %.2f, wanted %.1f): the decoder only "
    "guesses from the text. Most often it has had too little data or too few steps; a larger model.loss.ctc_weight, "
    "shorter utterances (data.max_seconds) or fewer model.decoder.layers help it"
)
WORSE = (
    "validation finds %.2f %% WER, more than the %.2f %% of the model that this run began with: should it stay so, "
    "begin again with a lower optimizer.learning_rate, or lower for the lower blocks (optimizer.layer_decay=0.9)"
)


class Diagnosis(Callback):
    """Write RUN/samples.txt, RUN/pictures and RUN/curves.png at each validation, and warn of what will not mend itself.

    Logs `valid/blank_share`, the share of frames in which CTC's best token is the blank, and
    `valid/attention_progress`, how steadily the best head moves through the audio from token to token: the correlation
    of a token's place with the frame it looks at, 1 for a head that moves forward all the time.

    Args:
        run: the run's folder.
        after: steps after which a stuck head is worth a warning.
    """

    def __init__(self, run: Path, after: int) -> None:
        self.run = run
        self.after = after
        self.source_wer: float | None = None  # of the model that the run began with

    def state_dict(self) -> dict[str, Any]:
        """Remember what is to be beaten."""
        return {"source_wer": self.source_wer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it from the run being resumed."""
        self.source_wer = state_dict["source_wer"]

    @torch.no_grad()
    def on_validation_batch_end(  # type: ignore[override]
        self,
        trainer: lightning.Trainer,
        pl_module: RecognizerModule,
        outputs: list[Hypothesis],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look closely at the first batch."""
        if batch_idx or trainer.state.fn != "fit":
            return
        model = pl_module.model
        with attention_weights(model.decoder) as weights:
            encoder_out, frames = model.encode(batch.waveform, batch.lengths)
            model.decoder(decoder_inputs(batch.tokens), encoder_out, frames)
        log_probs = model.ctc_log_probs(encoder_out)  # (B, T', V)
        heads = cross_attention(weights)  # (B, layers x H, U + 1, T')
        blank = (log_probs.argmax(dim=-1) == BLANK) & length_mask(frames, log_probs.shape[1])
        blank_share = float(blank.sum() / frames.sum())
        steady = steadiness(heads, batch.token_lengths)
        pl_module.log("valid/blank_share", blank_share, batch_size=len(batch.ids))
        pl_module.log("valid/attention_progress", float(steady.max()), batch_size=len(batch.ids))
        telling = model.config.loss.ctc_weight < 1 and bool((batch.token_lengths >= 3).any())  # as for `steadiness`
        if trainer.global_step >= self.after and trainer.is_global_zero:
            self._warn(blank_share, float(steady.max()) if telling else 1.0)
        if trainer.is_global_zero:
            self._write_samples(trainer, pl_module, outputs, batch)
            head = heads[0, int(steady.argmax()), : int(batch.token_lengths[0]) + 1, : int(frames[0])]
            texts = [model.tokenizer.piece(token) for token in batch.tokens[0, : int(batch.token_lengths[0])].tolist()]
            self._draw(trainer, head.cpu(), log_probs[0, : int(frames[0])].exp().cpu(), texts)

    def on_validation_end(  # type: ignore[override]
        self, trainer: lightning.Trainer, pl_module: RecognizerModule
    ) -> None:
        """Draw loss and word error rate so far, and compare the rate with that from before the first step."""
        rate = float(trainer.callback_metrics["valid/wer"])
        if trainer.state.fn != "fit":
            self.source_wer = rate
            return
        if trainer.is_global_zero:
            warm = trainer.global_step >= warmup(pl_module.optimizer_config, int(trainer.estimated_stepping_batches))
            if warm and self.source_wer is not None and rate > self.source_wer:
                log.warning(WORSE, 100 * rate, 100 * self.source_wer)
            logger = next(logger for logger in trainer.loggers if isinstance(logger, CSVLogger))
            logger.save()
            draw_curves(self.run)

    def _warn(self, blank_share: float, steady: float) -> None:
        if blank_share == 1.0:
            log.warning(ONLY_BLANKS, self.after)
        if steady < PROGRESS:
            log.warning(NO_PROGRESS, self.after, steady, PROGRESS)

    def _write_samples(
        self, trainer: lightning.Trainer, pl_module: RecognizerModule, outputs: list[Hypothesis], batch: Batch
    ) -> None:
        lines = []
        for name, hypothesis in list(zip(batch.ids, outputs, strict=True))[:SAMPLES]:
            text = pl_module.model.tokenizer.decode(hypothesis.tokens)
            lines += [f"{name}", f"  said   {pl_module.references[name]}", f"  heard  {text}"]
        with open(self.run / "samples.txt", "a", encoding="utf-8") as file:
            file.write("\n".join([f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}", *lines, "", ""]))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", "\n".join("    " + line for line in lines), trainer.global_step)

    def _draw(self, trainer: lightning.Trainer, head: Tensor, posteriors: Tensor, pieces: list[str]) -> None:
        figure = draw_heads(head, posteriors, pieces)
        (self.run / "pictures").mkdir(exist_ok=True)
        figure.savefig(self.run / "pictures" / f"epoch-{trainer.current_epoch + 1:03}.png", dpi=80)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure("attention and CTC", figure, trainer.global_step)


def steadiness(heads: Tensor, lengths: Tensor) -> Tensor:
    """Measure how steadily each head moves through the audio while the tokens go on.

    Args:
        heads: cross-attention weights, shape (B, N, U + 1, T').
        lengths: tokens of each text, shape (B,).

    Returns:
        Correlation of a token's place and the mean frame it looks at, averaged over the texts of three tokens or more,
        shape (N,); 0 where there is none.
    """
    telling = lengths >= 3
    correlation, _ = progress(mean_frames(heads[telling]), lengths[telling])
    return correlation.sum(dim=0) / telling.sum().clamp(min=1)
