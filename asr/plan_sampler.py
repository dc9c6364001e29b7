"""The epoch plan handed out to Lightning, from any place on: a run that was stopped goes on with its next batch.

The whole state of the data in mid-epoch is two integers: the epoch, and how many of its utterances were trained on.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from asr.batching import Budget, plan_epoch

log = logging.getLogger(__name__)


class PlanSampler(Sampler[list[tuple[int, int]]]):
    """Hands the epoch plan to the DataLoader, one rank's batches in order, from any place on.

    Args:
        durations: most seconds that each utterance can last.
        budget: what one batch may cost; see `plan_epoch`.
        seed: draws the order.
        ranks: number of processes that train together.
        rank: which of them this is.
        heard: gives the seconds that each utterance lasts in an epoch.
        short_first: let the first epoch go from short to long.
    """

    def __init__(
        self,
        durations: NDArray[np.float64],
        budget: float | Budget,
        seed: int,
        ranks: int = 1,
        rank: int = 0,
        *,
        heard: Callable[[int], NDArray[np.float64]] | None = None,
        short_first: bool = True,
    ) -> None:
        self.durations = durations
        self.budget = budget
        self.seed = seed
        self.ranks = ranks
        self.rank = rank
        self.heard = heard
        self.short_first = short_first
        self.epoch = 0
        self.done = 0
        """Utterances of the epoch that were trained on before this run took it up."""
        self._planned: tuple[int, int] | None = None
        self._plan: list[list[NDArray[np.int64]]] = []
        self._steps = len(self._make_plan(0, 0)[0])

    @property
    def sampler(self) -> PlanSampler:
        """Itself: Lightning tells the epoch to the sampler inside a batch sampler."""
        return self

    @property
    def key(self) -> str:
        """Tells plans apart: two of the same key deal out the same utterances in the same order."""
        heard = self.heard(0) if self.heard else self.durations  # tells other speeds apart
        facts = f"{self.budget} {self.seed} {self.short_first}".encode() + self.durations.tobytes() + heard.tobytes()
        return hashlib.blake2b(facts, digest_size=8).hexdigest()

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch; Lightning calls this at its beginning."""
        if epoch != self.epoch:
            self.epoch, self.done = epoch, 0

    @property
    def skipped(self) -> int:
        """Steps of the whole epoch, as Lightning counts them, that come before the first one here."""
        return self._steps - len(self.plan[0])

    @property
    def plan(self) -> list[list[NDArray[np.int64]]]:
        """What is left of the epoch, for each rank."""
        if self._planned != (self.epoch, self.done):
            self._plan = self._make_plan(self.epoch, self.done)
            self._planned = self.epoch, self.done
        return self._plan

    def done_after(self, steps: int) -> int:
        """Count the utterances that all ranks have done when Lightning has counted so many steps of the epoch."""
        return self.done + sum(len(rows) for batches in self.plan for rows in batches[: max(0, steps - self.skipped)])

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield each batch as (epoch, row) pairs."""
        for rows in self.plan[self.rank]:
            yield [(self.epoch, int(row)) for row in rows]

    def __len__(self) -> int:
        """Count the steps of a whole epoch, which are equally many in each; Lightning skips those done by itself."""
        return self._steps

    def _make_plan(self, epoch: int, done: int) -> list[list[NDArray[np.int64]]]:
        return plan_epoch(
            self.durations,
            self.budget,
            self.seed,
            epoch,
            self.ranks,
            heard=self.heard(epoch) if self.heard else None,
            done=done,
            short_first=self.short_first,
        )


class PlannedDataModule(lightning.LightningDataModule):
    """Training data that a plan puts in order, so that a restart in mid-epoch goes on with the next batch."""

    def __init__(self) -> None:
        super().__init__()
        self.sampler: PlanSampler | None = None
        self._state: dict[str, Any] = {}

    def take_up(self, sampler: PlanSampler) -> PlanSampler:
        """Put the sampler of a new loader where the state that was loaded left the epoch."""
        # Lightning may ask for the loader before it knows the epoch itself, and starts the workers at once.
        sampler.epoch, sampler.done = self._state.get("epoch", 0), self._state.get("done", 0)
        if sampler.done and self._state.get("plan", sampler.key) != sampler.key and not sampler.rank:
            log.warning(
                "budget, seed or data are others than before: of the epoch that the run goes on in, some utterances "
                "are heard twice and as many not at all"
            )
        self.sampler = sampler
        return sampler

    def state_dict(self) -> dict[str, Any]:
        """Tell the plan, the epoch, and how many of its utterances the trainer has done, not those only read ahead."""
        if self.sampler is None or self.trainer is None:
            return {}
        epoch, done = self.sampler.epoch, self.sampler.done_after(batch_counters(self.trainer)["processed"])
        whole = done >= len(self.sampler.durations)
        place = {"epoch": epoch + 1, "done": 0} if whole else {"epoch": epoch, "done": done}
        return {"plan": self.sampler.key} | place

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, with any number of ranks; Lightning calls this before it asks for the loader."""
        self._state = dict(state_dict)
        # Lightning looks for a state in the loader and warns where it finds none.
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")


def batch_counters(trainer: lightning.Trainer) -> dict[str, int]:
    """Give Lightning's own counters of this epoch's batches: ready, started, processed and completed."""
    return vars(trainer.fit_loop.epoch_loop.batch_progress.current)
