"""Everything a training run is told. YAML files in `conf/` override these defaults; `key=value` overrides both."""

from __future__ import annotations

from dataclasses import dataclass, field

from asr.datamodule import DataConfig
from asr.decoding.options import DecodingOptions
from asr.errors import ConfigError
from asr.model.config import ModelConfig
from asr.tokenizer import TokenizerConfig


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning rate over time (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    learning_rate: float = 2e-3
    """Peak learning rate."""
    warmup_steps: int = 1000
    """Steps of linear rise to the peak."""
    schedule: str = "cosine"
    """`cosine`: down to `final_share` of the peak at the last step. `inverse_sqrt`: peak x sqrt(warmup / step)."""
    final_share: float = 0.01
    """Share of the peak that `cosine` ends at."""
    weight_decay: float = 0.01
    """Decay of matrices; norms, biases and embeddings are spared."""
    gradient_clip: float = 5.0
    """Largest gradient norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        """Check the schedule's name and every number."""
        if self.schedule not in ("cosine", "inverse_sqrt"):
            raise ConfigError(f"optimizer.schedule must be cosine or inverse_sqrt, got {self.schedule!r}")
        if self.learning_rate <= 0 or self.warmup_steps < 1:
            raise ConfigError("optimizer.learning_rate must be over 0 and optimizer.warmup_steps at least 1")
        if min(self.weight_decay, self.gradient_clip, self.final_share) < 0:
            raise ConfigError("optimizer: weight_decay, gradient_clip and final_share must be 0 or more")


@dataclass(frozen=True)
class TrainingConfig:
    """The run itself."""

    epochs: int = 50
    """Passes over the training data."""
    seed: int = 1
    """Seed of initial weights, order and augmentation."""
    average_decay: float = 0.999
    """Decay of the running weight average that is validated, saved and shipped; 0 turns it off."""
    validate_every: int = 1
    """Epochs between validations; a checkpoint is written after each."""
    accelerator: str = "auto"
    """Lightning's name of the hardware: `auto`, `cpu`, `gpu`."""
    devices: int = 1
    """Devices on this machine that train together."""
    precision: str = "auto"
    """Lightning's precision; `auto` is bf16-mixed on GPUs that have it, else 32-true."""

    def __post_init__(self) -> None:
        """Check every number."""
        if self.epochs < 1 or self.validate_every < 1 or self.devices < 1:
            raise ConfigError("training.epochs, training.validate_every and training.devices must be at least 1")
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f"training.average_decay must lie in 0 <= average_decay < 1, got {self.average_decay}")


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
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    """How validation decodes; see `asr.decoding.options`."""
