"""The LightningModule: one recogniser, its loss, its optimiser, and validation by real decoding."""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from asr.audio import SAMPLE_RATE
from asr.decoding import DecodingOptions, decode
from asr.evaluation.wer import score
from asr.losses import Losses
from asr.model.recognizer import Batch, Recognizer
from asr.normalize import get_normalizer
from asr.training.config import OptimizerConfig
from asr.training.optimizers import make_optimizer, make_schedule


class RecognizerModule(lightning.LightningModule):
    """Trains a recogniser.

    Args:
        model: the recogniser.
        optimizer: learning rate and its schedule.
        decoding: how validation decodes.
        references: raw transcript of each validation utterance by id; WER is never measured on token round trips.
    """

    def __init__(
        self, model: Recognizer, optimizer: OptimizerConfig, decoding: DecodingOptions, references: dict[str, str]
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_config = optimizer
        self.decoding = decoding
        self.references = references
        self.pairs: list[tuple[str, str]] = []

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Give the loss of one batch, divided by the tokens of all ranks' batches."""
        losses = self.model.loss(batch)
        self._log("train", losses, batch)
        self.log("train/infeasible", losses.infeasible.float(), reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("train/audio_hours", batch.lengths.sum() / SAMPLE_RATE / 3600, reduce_fx="sum", on_epoch=True)
        # Lightning averages gradients over ranks: the mean tokens a rank makes that the sum over all tokens.
        tokens = self.trainer.strategy.reduce(losses.tokens.float(), reduce_op="mean")
        return losses.total / torch.as_tensor(tokens).clamp_min(1)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Decode one batch and keep its texts beside the references."""
        self._log("valid", self.model.loss(batch), batch)
        encoder_out, lengths = self.model.encode(batch.waveform, batch.lengths)
        for utterance, hypotheses in zip(
            batch.ids, decode(self.model, encoder_out, lengths, self.decoding), strict=True
        ):
            self.pairs.append((self.references[utterance], self.model.tokenizer.decode(hypotheses[0].tokens)))

    def on_validation_epoch_end(self) -> None:
        """Log the corpus-level word error rate over all ranks."""
        gathered: list[list[tuple[str, str]]] = [self.pairs] * self.trainer.world_size
        if self.trainer.world_size > 1:
            torch.distributed.all_gather_object(gathered, self.pairs)
        result = score([pair for pairs in gathered for pair in pairs], get_normalizer("basic"))
        self.log("valid/wer", result.wer.rate, prog_bar=True, rank_zero_only=False)
        self.log("valid/cer", result.cer.rate)
        self.pairs = []

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make AdamW and its schedule over the whole run."""
        optimizer = make_optimizer(self.model, self.optimizer_config)
        schedule = make_schedule(optimizer, self.optimizer_config, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _log(self, stage: str, losses: Losses, batch: Batch) -> None:
        tokens = losses.tokens.clamp_min(1)
        size = int(tokens)
        bar = stage == "train"
        self.log(f"{stage}/loss", losses.total.detach() / tokens, prog_bar=bar, batch_size=size, sync_dist=not bar)
        self.log(f"{stage}/ctc", losses.ctc / tokens, batch_size=size, sync_dist=not bar)
        self.log(f"{stage}/attention", losses.attention / tokens, batch_size=size, sync_dist=not bar)
