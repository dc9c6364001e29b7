"""What trainer and training data must know of each other when a run goes on with another number of ranks."""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from asr.datamodule import SpeechDataModule
from asr.errors import DataError
from asr.plan_sampler import batch_counters

ENOUGH = 20  # times that an augmentation should have fired by now, if it has not once, for it to be broken


class FollowData(Callback):
    """Keep the trainer and the training data in step, and log what augmentation does.

    Args:
        data: the data that the trainer reads.
    """

    def __init__(self, data: SpeechDataModule) -> None:
        self.data = data
        self.total: Tensor | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Let a resumed trainer count the steps of its epoch as if there had always been as many ranks as now."""
        sampler, counters = self.data.sampler, batch_counters(trainer)
        if sampler is not None:
            ended = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            shift = (len(sampler) if ended else sampler.skipped) - counters["processed"]
            counters.update({name: count + shift for name, count in counters.items()})

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the share of utterances that each kind of augmentation has changed.

        Raises:
            DataError: a kind that is turned on has changed nothing, in this epoch or before.
        """
        dataset, sampler = self.data.dataset, self.data.sampler
        if dataset is None or sampler is None:
            return
        hits = torch.as_tensor(trainer.strategy.reduce(dataset.hits.sum(0).to(pl_module.device), reduce_op="sum")).cpu()
        dataset.hits.zero_()
        self.total = hits if self.total is None else self.total + hits
        for kind, count in zip(dataset.kinds, hits[1:].tolist(), strict=True):
            pl_module.log(f"augment/{kind}", count / max(1, int(hits[0])), rank_zero_only=True)
        expected = [float(self.total[0]) * dataset.probability(kind) for kind in dataset.kinds]
        counts = zip(dataset.kinds, self.total[1:].tolist(), expected, strict=True)
        never = [kind for kind, count, most in counts if not count and most >= ENOUGH]
        if never:
            raise DataError(
                f"augmentation {', '.join(never)} is turned on but changed none of the {int(hits[0])} utterances of "
                f"epoch {sampler.epoch}: raise its probability, check its recordings, or turn it off"
            )
