"""Everything a training run is told. YAML files in `conf/` override these defaults; `key=value` overrides both."""

from __future__ import annotations

from dataclasses import dataclass, field

from asr.config import check_choice
from asr.datamodule import DataConfig
from asr.decoding.options import DecodingOptions
from asr.errors import ConfigError
from asr.model.config import ModelConfig
from asr.tokenizer import TokenizerConfig


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights move, and how fast over time."""

    name: str = "adamw"
    """`adamw` (Loshchilov and Hutter 2019, arXiv:1711.05101), or `muon` (Jordan et al. 2024; Liu et al. 2025,
    arXiv:2502.16982): orthogonal updates for matrices, scaled like AdamW's, and AdamW for everything else. Torch
    computes them in bf16: on a CPU that has no such products, a step takes many times as long."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    warmup_steps: int = 1000
    """Steps of linear rise to the peak."""
    schedule: str = "cosine"
    """`cosine`: down to `final_share` of the peak at the last step. `wsd`: at the peak until the last `decay_share` of
    the steps, then straight down to `final_share`. `inverse_sqrt`: peak x sqrt(warmup / step)."""
    decay_share: float = 0.2
    """Share of the run in which `wsd` comes down."""
    final_share: float = 0.01
    """Share of the peak that `cosine` and `wsd` end at."""
    weight_decay: float = 0.01
    """Decay of matrices; norms, biases and embeddings are spared."""
    layer_decay: float = 1.0
    """Each encoder block learns at this share of the rate of the block above it; below 1 in fine-tuning."""
    gradient_clip: float = 5.0
    """Largest gradient norm; 0 turns clipping off."""
    accumulate: int = 1
    """Batches to each step; the loss is divided by the tokens of all of them, so that four small batches make the step
    that one large one would."""

    def __post_init__(self) -> None:
        """Check the names and every number."""
        check_choice("optimizer.name", self.name, ("adamw", "muon"))
        check_choice("optimizer.schedule", self.schedule, ("cosine", "wsd", "inverse_sqrt"))
        if not self.learning_rate > 0 or self.warmup_steps < 1 or self.accumulate < 1:
            raise ConfigError("optimizer: learning_rate must be over 0, warmup_steps and accumulate must be at least 1")
        if not all(value >= 0 for value in (self.weight_decay, self.gradient_clip, self.final_share)):
            raise ConfigError("optimizer: weight_decay, gradient_clip and final_share must be 0 or more")
        for name in ("decay_share", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"optimizer.{name} must lie in 0 < {name} <= 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainingConfig:
    """The run itself."""

    epochs: int = 50
    """Passes over the training data."""
    batches: int = 0
    """Batches of each epoch and of each validation; 0 for all. For debugging."""
    seed: int = 1
    """Seed of initial weights, order and augmentation."""
    average_decay: float = 0.999
    """Decay of the running weight average that is validated, saved and shipped, less in the first steps; 0 turns it
    off."""
    validate_every: int = 1
    """Epochs from one validation to the next; the last is always validated."""
    patience: int = 0
    """Validations without a lower word error rate (of characters, where texts hold no blanks) after which the run ends;
    0 never ends it early."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints inside an epoch; there is one after each epoch as well."""
    keep_last: int = 2
    """Checkpoints to resume from that are kept; the older ones serve if the newest is damaged."""
    keep_best: int = 3
    """Models by lowest word error rate (of characters, where texts hold no blanks) that are kept in RUN/best, for
    `asr average`."""
    most_skipped: int = 20
    """Steps in a row with a loss or gradient that is not finite, after which the run is given up."""
    check_after: int = 2000
    """Steps after which a validation says so if CTC writes only blanks or attention does not move forward."""
    accelerator: str = "auto"
    """Lightning's name of the hardware: `cpu`, `gpu`, or `auto`: a CUDA GPU where there is one, else the CPU."""
    devices: int = 1
    """Devices on each machine that train together."""
    nodes: int = 1
    """Machines that train together, started by torchrun or SLURM."""
    strategy: str = "auto"
    """Lightning's name of how devices share the work: `auto` (`ddp` where there are several), `ddp`; or `fsdp`: each
    device keeps its share of weights, gradients and moments (FSDP2), for models that do not fit otherwise. It goes with
    `average_decay=0`, AdamW, no stochastic depth and no fp16."""
    precision: str = "auto"
    """`32-true`, `64-true`, `bf16-mixed`, `16-mixed`, or `auto`: bf16 on GPUs that have it, fp16 on other GPUs, else 32
    bits."""
    loggers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where curves go beside RUN/metrics.csv: `tensorboard`, `wandb`, `mlflow`."""
    profile: bool = False
    """Write how long each part of the loop took to RUN/fit-profile.txt."""

    def __post_init__(self) -> None:
        """Check the names and every number."""
        check_choice("training.strategy", self.strategy, ("auto", "ddp", "fsdp"))
        check_choice("training.precision", self.precision, ("auto", "32-true", "64-true", "bf16-mixed", "16-mixed"))
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"training.seed must lie in 0..{2**32 - 1}, got {self.seed}")
        for logger in self.loggers:
            check_choice("training.loggers", logger, ("tensorboard", "wandb", "mlflow"))
        for name in ("epochs", "validate_every", "devices", "nodes", "keep_last", "keep_best", "most_skipped"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} must be at least 1, got {getattr(self, name)}")
        if self.patience < 0 or not self.checkpoint_minutes > 0:
            raise ConfigError("training: patience must be 0 or more and checkpoint_minutes over 0")
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f"training.average_decay must lie in 0 <= average_decay < 1, got {self.average_decay}")


@dataclass(frozen=True)
class FinetuneConfig:
    """What `--init-from` keeps of the model it begins with."""

    tokenizer: str = "keep"
    """`keep` the source's; `extend` it by the characters of the new data that it lacks; or train a `new` one as
    `tokenizer` says. Output rows stay with their token; rows of other tokens begin at random."""
    added_blocks: int = 0
    """Encoder blocks put in, spread evenly over the source's; each begins as a copy of the block before it that passes
    its input on (after Chen et al. 2016, Net2Net, arXiv:1511.05641), so that a larger model goes on where it stood."""
    freeze: list[str] = field(default_factory=list)
    """Weights that stay as they are, by shell patterns of their names such as `encoder.blocks.[0-7].*`."""
    lora_rank: int = 0
    """Rank of low-rank adapters (Hu et al. 2021, arXiv:2106.09685) in all linear layers of encoder and decoder, which
    then learn alone; they are merged into the weights of the saved model. 0 for none. Needs the package peft."""

    def __post_init__(self) -> None:
        """Check the choice and the numbers."""
        check_choice("finetune.tokenizer", self.tokenizer, ("keep", "extend", "new"))
        for name in ("added_blocks", "lora_rank"):
            if getattr(self, name) < 0:
                raise ConfigError(f"finetune.{name} must be 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run."""

    run: str = "run"
    """Folder for checkpoints, logs and the finished model."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network; see `asr.model.config`."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """The vocabulary; see `asr.tokenizer`."""
    data: DataConfig = field(default_factory=DataConfig)
    """What is read; see `asr.datamodule`."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How weights move."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How long and on what."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """What a run that begins with another model keeps of it."""
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    """How validation decodes; see `asr.decoding.options`."""

    def __post_init__(self) -> None:
        """Refuse what several devices, or sharded weights, do not go with."""
        if self.data.batch_seconds == "auto" and self.training.devices * self.training.nodes > 1:
            raise ConfigError(
                "data.batch_seconds=auto measures one device, and each of several would plan another epoch: begin a "
                "run with training.devices=1, and give all of them the number of seconds that it finds"
            )
        if self.training.strategy != "fsdp":
            return
        for name, wrong in (
            ("training.average_decay must be 0", self.training.average_decay),  # a running average cannot be sharded
            ("optimizer.name must be adamw", self.optimizer.name != "adamw"),  # Muon needs whole matrices
            (
                "model.encoder.stochastic_depth must be 0",
                self.model.encoder.stochastic_depth,
            ),  # each rank draws its own
            ("finetune.lora_rank must be 0", self.finetune.lora_rank),
            ("training.precision must not be 16-mixed", self.training.precision == "16-mixed"),
        ):
            if wrong:
                raise ConfigError(f"training.strategy=fsdp shards the weights: {name}")
