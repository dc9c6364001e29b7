from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from asr.config import build, compose, resource
from asr.errors import ConfigError
from asr.model.config import ModelConfig
from asr.training.config import TrainConfig


def test_yaml_overrides_the_dataclass_and_arguments_override_yaml():
    config = compose(TrainConfig, "mini_librispeech", ["model.encoder.layers=3", "decoding=attention"])
    assert config.model.encoder.layers == 3
    assert config.model.encoder.dim == 144
    assert config.decoding.mode == "attention"
    assert config.model.loss.label_smoothing == ModelConfig().loss.label_smoothing


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle.encoder.layers=3", "did you mean 'model.encoder.layers'"),
        ("model.encoder.layers=many", "model.encoder.layers: Value 'many'"),
        ("model.encoder.kernel=4", "kernel must be odd"),
        ("decoding=attenton", "decoding/attenton"),
        ("data.train", "write key=value"),
    ],
)
def test_a_wrong_override_is_one_line(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose(TrainConfig, "mini_librispeech", [override])
    assert "\n" not in str(caught.value)


def test_a_file_of_ones_own_may_use_the_shipped_parts(tmp_path: Path):
    own = tmp_path / "own.yaml"
    own.write_text("defaults: [/schema, {/model: conformer_xs}, _self_]\nrun: elsewhere\n")
    assert compose(TrainConfig, str(own)).model.encoder.subsampling == 8
    own.write_text("defaults: [/schema, _self_]\ndata: {trian: [a]}\n")
    with pytest.raises(ConfigError, match=r"did you mean 'data\.train'"):
        compose(TrainConfig, str(own))


def test_the_package_may_lie_under_any_folder(tmp_path, monkeypatch):
    conf = tmp_path / "jürgen's a,b (1)&#" / "conf"
    shutil.copytree(resource("conf"), conf)
    monkeypatch.setattr("asr.config.resource", lambda name: conf)
    (tmp_path / "own.yaml").write_text("defaults: [/schema, {/model: conformer_xs}, _self_]\nrun: elsewhere\n")
    assert compose(TrainConfig, str(tmp_path / "own.yaml")).model.encoder.subsampling == 8


def test_a_file_without_the_schema_is_checked_all_the_same(tmp_path: Path):
    """Such as the one that each run leaves behind."""
    begun = replace(compose(TrainConfig, "mini_librispeech"), run="elsewhere")
    own = tmp_path / "config.yaml"
    own.write_text(yaml.safe_dump(asdict(begun)))
    assert compose(TrainConfig, str(own)) == begun
    own.write_text(yaml.safe_dump(asdict(begun) | {"trainnig": {"epochs": 3}}))
    with pytest.raises(ConfigError, match="unknown configuration key 'trainnig'; did you mean 'training'"):
        compose(TrainConfig, str(own))
    own.write_text("run: x\ntraining: {epochs: three}\n")
    with pytest.raises(ConfigError, match=r"training\.epochs"):
        compose(TrainConfig, str(own))


@pytest.mark.parametrize("name", [path.stem for path in (resource("conf") / "recipe").glob("*.yaml")])
def test_batches_have_room_for_the_longest_utterance_at_the_slowest_speed(name):
    data = compose(TrainConfig, name).data
    assert data.max_seconds / min(data.speeds) <= data.batch_seconds


def test_a_missing_configuration_is_one_line():
    with pytest.raises(ConfigError, match="did you mean 'mini_librispeech'"):
        compose(TrainConfig, "mini_libri")
    with pytest.raises(ConfigError, match="no such configuration file"):
        compose(TrainConfig, "nowhere.yaml")


@pytest.mark.parametrize("traced", ["0", "1"], ids=["plain", "as under a debugger"])
def test_build_names_the_unknown_key(monkeypatch, traced):
    monkeypatch.setenv("OC_CAUSE", traced)  # 1 makes OmegaConf's errors their own cause, which once hung the program
    with pytest.raises(
        ConfigError, match=r"here: unknown configuration key 'encoder\.layer'; did you mean 'encoder\.layers'"
    ):
        build(ModelConfig, {"encoder": {"layer": 3}}, "here")


def test_resources_are_there():
    assert (resource("conf") / "recipe" / "mini_librispeech.yaml").is_file()


@pytest.mark.parametrize(
    "content", [b"model: [", b"defaults: /schema\n", b"run:\n\tx: 1\n", "run: café\n".encode("latin-1")]
)
def test_a_damaged_file_of_ones_own_is_one_line(tmp_path, content):
    (tmp_path / "own.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"\A[^\n]*own\.yaml[^\n]*\Z"):
        compose(TrainConfig, str(tmp_path / "own.yaml"))
