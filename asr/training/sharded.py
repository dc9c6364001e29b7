"""Training with weights, gradients and moments shared out over the ranks (FSDP2; Zhao et al. 2023, arXiv:2304.11277).

Weights are gathered for one encoder block at a time. The decoder, whose blocks are also stepped by themselves in
decoding, is gathered together with heads and subsampling.
"""

from __future__ import annotations

from typing import cast

from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from asr.training.module import RecognizerModule


class ShardedModule(RecognizerModule):
    """A recogniser of which each rank keeps its share."""

    def configure_model(self) -> None:
        """Shard the weights, which are the same on each rank; Lightning calls this more than once."""
        if isinstance(self.model, FSDPModule):
            return
        mesh = cast("ModelParallelStrategy", self.trainer.strategy).device_mesh["data_parallel"]
        for block in self.model.encoder.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        for method in ("loss", "encode"):  # what is called in place of forward
            register_fsdp_forward_method(self.model, method)
