"""What a model tells of its making, and what it keeps to itself."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from asr.augment import AugmentConfig
from asr.datamodule import DataConfig
from asr.decoding import DecodingOptions
from asr.manifest import Manifest
from asr.training.config import TrainConfig
from asr.training.provenance import provenance


def test_no_path_of_the_machine_and_no_name_is_told(manifest: Manifest) -> None:
    home = "/home/ann/client"
    augment = AugmentConfig(
        noise=[f"{home}/n/noise.jsonl"], noise_probability=0.5, reverberation=[f"{home}/r/rooms.jsonl"]
    )
    config = TrainConfig(
        run=f"{home}/run",
        data=DataConfig(train=[f"{home}/a/train.jsonl"], valid=[f"{home}/a/dev.jsonl"], augment=augment),
        decoding=DecodingOptions(language_model=f"{home}/lm.arpa", hotwords="Ann Smith"),
    )
    data: Any = SimpleNamespace(train=manifest, left_out=0)
    told = provenance(config, data, None)()
    assert told["data"]["manifests"] == ["a/train.jsonl"]
    assert told["config"]["data"]["augment"]["noise"] == ["n/noise.jsonl"]
    assert "ann" not in json.dumps(told).lower()
