"""The LightningModule: one recogniser, its loss, its optimiser, and validation by real decoding."""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from asr.audio import SAMPLE_RATE
from asr.decoding import DecodingOptions, Hypothesis, decode
from asr.evaluation.wer import score
from asr.losses import Losses
from asr.model.recognizer import Batch, Recognizer
from asr.normalize import get_normalizer
from asr.training.config import OptimizerConfig
from asr.training.optimizers import make_optimizer, make_schedule


class RecognizerModule(lightning.LightningModule):
    """Trains a recogniser.

    The gradient of a step is that of the summed loss of all its batches on all ranks, divided by all their tokens: how
    the utterances are dealt out to batches and ranks makes no difference.

    Args:
        model: the recogniser.
        optimizer: learning rate and its schedule.
        decoding: how validation decodes.
        references: raw transcript of each validation utterance by id; WER is never measured on token round trips.
        seed: of the run; dropout draws from (seed, step, rank) and so needs no state to be resumed.
    """

    def __init__(
        self,
        model: Recognizer,
        optimizer: OptimizerConfig,
        decoding: DecodingOptions,
        references: dict[str, str],
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_config = optimizer
        self.decoding = decoding
        self.references = references
        self.seed = seed
        self.pairs: list[tuple[str, str]] = []
        self.step_tokens: Tensor | None = None  # target tokens of the batches since the last step, on this rank

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Give the summed loss of one batch; the step divides its gradient by tokens."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_index, self.global_rank)))
        losses = self.model.loss(batch)
        self._log("train", losses, batch)
        self.log("train/infeasible", losses.infeasible.float(), reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("train/audio_hours", batch.lengths.sum() / SAMPLE_RATE / 3600, reduce_fx="sum", on_epoch=True)
        self.step_tokens = losses.tokens if self.step_tokens is None else self.step_tokens + losses.tokens
        return losses.total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradient by the tokens it was summed over.

        Lightning has averaged it over ranks and divided it by the number of batches, which both are undone.
        """
        assert self.step_tokens is not None
        tokens = torch.as_tensor(self.trainer.strategy.reduce(self.step_tokens.float(), reduce_op="mean"))
        self.step_tokens = None
        share = self.trainer.accumulate_grad_batches / tokens.clamp_min(1.0)
        for weight in self.parameters():
            if weight.grad is not None:
                weight.grad.mul_(share)

    def validation_step(self, batch: Batch, batch_index: int) -> list[Hypothesis]:
        """Decode one batch and keep its texts beside the references; gives the best hypotheses."""
        self._log("valid", self.model.loss(batch), batch)
        encoder_out, lengths = self.model.encode(batch.waveform, batch.lengths)
        best = [hypotheses[0] for hypotheses in decode(self.model, encoder_out, lengths, self.decoding)]
        texts = [self.model.tokenizer.decode(hypothesis.tokens) for hypothesis in best]
        self.pairs += [(self.references[name], text) for name, text in zip(batch.ids, texts, strict=True)]
        return best

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
        """Make the optimiser and its schedule over the whole run."""
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
