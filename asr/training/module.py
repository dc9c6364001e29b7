"""The LightningModule: one recogniser, its loss, its optimiser, and validation by real decoding."""

from __future__ import annotations

import logging

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from asr.decoding import DecodingOptions, Hypothesis, decode
from asr.errors import DataError
from asr.evaluation.wer import score
from asr.losses import Losses
from asr.model.batch_norm import MaskedBatchNorm
from asr.model.recognizer import Batch, Recognizer
from asr.normalize import get_normalizer
from asr.samples import SAMPLE_RATE
from asr.training.config import OptimizerConfig
from asr.training.optimizers import configured_rates, make_optimizer, make_schedule, set_rates
from asr.training.out_of_memory import Scored, backward_in_parts, ran_out

log = logging.getLogger(__name__)

TOO_LARGE_FOR_SHARDS = "memory ran out, and training.strategy=fsdp cannot split a batch: lower data.batch_seconds"
COUNTED = ("audio_hours", "infeasible", "out_of_memory", "left_out")  # of an epoch, over all ranks


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
        self.losses: Losses | None = None  # of the batch at hand; none if it did not fit into memory
        self.counts = torch.zeros(len(COUNTED), dtype=torch.int64)

    def on_train_start(self) -> None:
        """Make the counters, and keep DistributedDataParallel from exchanging anything inside each pass.

        Ranks exchange them once for each step instead, when all batches are done: a rank may then skip blocks, or split
        a batch that does not fit into its memory, without the others having to do the same.
        """
        set_rates(self.schedule, self.rates)
        self.counts = torch.zeros(len(COUNTED), dtype=torch.int64, device=self.device)
        if isinstance(self.trainer.model, DistributedDataParallel):
            self.trainer.model.require_backward_grad_sync = False

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Keep the losses of one batch for `backward`; what Lightning gets would hold on to what the pass has kept."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_index, self.global_rank)))
        self.batch, self.losses = batch, None
        try:
            self.losses = self.model.loss(batch)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            if isinstance(self.model, FSDPModule):  # the other ranks wait for this one inside the model
                raise DataError(TOO_LARGE_FOR_SHARDS) from error
        return torch.zeros((), device=self.device, requires_grad=True)

    def backward(self, loss: Tensor) -> None:
        """Go back through the batch, in parts if it does not fit into memory, and log what came of it.

        The gradient is that of the sum over utterances; the step divides it by tokens.
        """
        precision = self.trainer.precision_plugin

        def scored(losses: Losses) -> Scored:
            return Scored(precision.pre_backward(losses.total / self.trainer.accumulate_grad_batches, self), losses)

        def again(part: Batch) -> Scored:
            if isinstance(self.model, FSDPModule):
                raise DataError(TOO_LARGE_FOR_SHARDS)
            with precision.forward_context():
                return scored(self.model.loss(part))

        whole = [scored(self.losses)] if self.losses else []
        self.losses = None
        heard, failures, left_out = backward_in_parts(self.model, self.batch, whole, again)
        tokens, infeasible = torch.zeros(2, dtype=torch.int64, device=self.device)
        if heard:
            losses = Losses(*(torch.stack(parts).sum(dim=0) for parts in zip(*heard, strict=True)))
            tokens, infeasible = losses.tokens, losses.infeasible
            self._log("train", losses)
        self.step_tokens = tokens if self.step_tokens is None else self.step_tokens + tokens
        counts = (self.batch.lengths.sum(), infeasible, failures, len(left_out))
        self.counts += torch.stack([torch.as_tensor(count, device=self.device) for count in counts])

    def on_train_epoch_end(self) -> None:
        """Log what was counted in this epoch on all ranks."""
        counts = torch.as_tensor(self.trainer.strategy.reduce(self.counts, reduce_op="sum")).tolist()
        self.counts = torch.zeros_like(self.counts)
        for name, count in zip(COUNTED, counts, strict=True):
            value = count / SAMPLE_RATE / 3600 if name == "audio_hours" else float(count)
            self.log(f"train/{name}", value, rank_zero_only=True)
        if counts[2] and self.trainer.is_global_zero:
            log.warning(
                "epoch %d: memory ran out %d times and batches were split; %d utterances that do not fit even alone "
                "were left out; a smaller data.batch_seconds or data.max_seconds spares the time",
                self.current_epoch + 1,
                counts[2],
                counts[3],
            )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Sum the gradient over ranks and divide it by the tokens of all of them."""
        assert self.step_tokens is not None
        tokens, self.step_tokens = self.step_tokens.float(), None
        share = float(self.trainer.accumulate_grad_batches)  # Lightning has divided the loss by this
        learning = [weight for weight in self.parameters() if weight.requires_grad]
        if all(weight.grad is None for weight in learning):  # thrown away on all ranks, since it was not finite
            return
        if isinstance(self.trainer.model, DistributedDataParallel):
            sum_over_ranks(learning, tokens)
            average_over_ranks([part for norm in self._batch_norms() for part in norm.buffers()])
        elif isinstance(self.model, FSDPModule):  # sharded gradients are exchanged already, as means
            torch.distributed.all_reduce(tokens)
            average_over_ranks([part for norm in self._batch_norms() for part in norm.buffers()])
            share *= self.trainer.world_size
        factor = share / tokens.clamp_min(1.0)
        for weight in learning:
            if weight.grad is not None:
                weight.grad.mul_(factor)

    def validation_step(self, batch: Batch, batch_index: int) -> list[Hypothesis]:
        """Decode one batch and keep its texts beside the references; gives the best hypotheses.

        Raises:
            DataError: it does not fit into memory.
        """
        try:
            self._log("valid", self.model.loss(batch))
            encoder_out, lengths = self.model.encode(batch.waveform, batch.lengths)
            best = [hypotheses[0] for hypotheses in decode(self.model, encoder_out, lengths, self.decoding)]
        except RuntimeError as error:
            if not ran_out(error):
                raise
            seconds = float(batch.lengths.max()) / SAMPLE_RATE
            raise DataError(
                f"data.valid: {batch.ids[0]} ({seconds:.0f} s) and what is decoded with it do not fit into memory: cut "
                "long recordings (asr prepare, asr manifest), or choose a smaller data.batch_seconds"
            ) from error
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
        optimizer = make_optimizer(self.model, self.optimizer_config, fused="mixed" not in self.trainer.precision)
        self.schedule = make_schedule(optimizer, self.optimizer_config, int(self.trainer.estimated_stepping_batches))
        self.rates = configured_rates(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule, "interval": "step"}}

    def _batch_norms(self) -> list[MaskedBatchNorm]:
        return [part for part in self.model.modules() if isinstance(part, MaskedBatchNorm)]

    def _log(self, stage: str, losses: Losses) -> None:
        tokens = losses.tokens.clamp_min(1)
        size = int(tokens)
        bar = stage == "train"
        self.log(f"{stage}/loss", losses.total.detach() / tokens, prog_bar=bar, batch_size=size, sync_dist=not bar)
        self.log(f"{stage}/ctc", losses.ctc / tokens, batch_size=size, sync_dist=not bar)
        self.log(f"{stage}/attention", losses.attention / tokens, batch_size=size, sync_dist=not bar)
        if self.model.config.loss.intermediate_layers:
            self.log(f"{stage}/intermediate", losses.intermediate / tokens, batch_size=size, sync_dist=not bar)
        if self.model.config.loss.cr_ctc_weight and self.model.training:
            self.log(f"{stage}/consistency", losses.consistency / tokens, batch_size=size)


def average_over_ranks(statistics: list[Tensor]) -> None:
    """Replace running statistics, in place, by their means over all ranks: each has measured its own batches.

    Args:
        statistics: float, of the same shapes on each rank.
    """
    if not statistics:
        return
    together = torch.cat([part.flatten() for part in statistics])
    torch.distributed.all_reduce(together)
    together /= torch.distributed.get_world_size()
    for part, mean in zip(statistics, together.split([part.numel() for part in statistics]), strict=True):
        part.copy_(mean.view_as(part))


def sum_over_ranks(weights: list[nn.Parameter], tokens: Tensor) -> None:
    """Replace gradients and the number of tokens, in place, by their sums over all ranks.

    Args:
        weights: the same on each rank; one without a gradient counts as zero.
        tokens: float, shape ().
    """
    parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    together = torch.cat([*(part.flatten() for part in parts), tokens.flatten()])
    torch.distributed.all_reduce(together)
    *sums, total = together.split([*(part.numel() for part in parts), 1])
    for weight, part in zip(weights, sums, strict=True):
        weight.grad = part.view_as(weight)
    tokens.copy_(total[0])
