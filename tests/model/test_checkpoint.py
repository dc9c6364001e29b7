from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from examples import small_config, waveforms

from asr import files
from asr.errors import CheckpointError, WriteError
from asr.model import checkpoint
from asr.model.recognizer import Recognizer


def test_round_trip_is_bit_for_bit(model, tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    model.norm.fit([torch.randn(50, 80)])
    checkpoint.save(path, model, {"metrics": {"wer": 0.5}})
    loaded, about = checkpoint.load(path)
    assert about == {"metrics": {"wer": 0.5}}
    assert loaded.config == model.config
    assert loaded.tokenizer.model == model.tokenizer.model
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    waveform, lengths = waveforms("1737-146161-0009")
    assert torch.equal(loaded.encode(waveform, lengths)[0], model.encode(waveform, lengths)[0])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_half_precision_halves_the_file_and_spares_the_statistics(model, tmp_path):
    model.norm.fit([torch.randn(50, 80)])
    checkpoint.save(tmp_path / "full.safetensors", model, {})
    checkpoint.save(tmp_path / "half.safetensors", model, {}, torch.float16)
    loaded, _ = checkpoint.load(tmp_path / "half.safetensors")
    assert torch.equal(loaded.norm.mean, model.norm.mean)
    assert loaded.ctc_head.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.ctc_head.weight, model.ctc_head.weight, atol=1e-3, rtol=1e-3)
    assert checkpoint.describe(tmp_path / "half.safetensors")["stored_as"] == "float16"


def test_a_batchs_statistics_are_neither_halved_nor_counted(tokenizer, tmp_path):
    model = Recognizer(small_config(norm="batch"), tokenizer)
    statistics = [tensor for name, tensor in model.state_dict().items() if "running" in name]
    for tensor in statistics:
        tensor.fill_(1e5)  # beyond float16
    checkpoint.save(tmp_path / "half.safetensors", model, {}, torch.float16)
    loaded, _ = checkpoint.load(tmp_path / "half.safetensors")
    assert statistics
    assert all(bool((tensor == 1e5).all()) for name, tensor in loaded.state_dict().items() if "running" in name)
    found = checkpoint.describe(tmp_path / "half.safetensors")
    assert found["parameters"] == sum(weight.numel() for weight in model.parameters())


def test_describe_counts_what_the_model_counts(model, tmp_path):
    checkpoint.save(tmp_path / "m.safetensors", model, {"data": "x"})
    found = checkpoint.describe(tmp_path / "m.safetensors")
    assert found["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert found["tokenizer"]["tokens"] == len(model.tokenizer)
    assert found["about"] == {"data": "x"}


@pytest.mark.parametrize("about", [None, [], "x", 5])
def test_what_is_said_about_a_checkpoint_is_an_object(model, tmp_path, about):
    checkpoint.save(tmp_path / "m.safetensors", model, about)
    for read in (checkpoint.load, checkpoint.describe):
        with pytest.raises(CheckpointError, match=r"m\.safetensors: .*what is said about it is no object"):
            read(tmp_path / "m.safetensors")


def test_loading_needs_no_lightning(model, tmp_path):
    checkpoint.save(tmp_path / "m.safetensors", model, {})
    code = (
        "import sys; from asr.model import checkpoint; checkpoint.load(sys.argv[1]); "
        "heavy = {'lightning', 'pytorch_lightning', 'lhotse', 'pyarrow', 'librosa', 'hydra'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.safetensors")]
    assert subprocess.run(command, check=False, capture_output=True, text=True).stderr == ""


def damaged(content: bytes):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        damaged(b""),
        damaged(b"not a checkpoint at all"),
        damaged(b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),  # a header that claims to be exabytes long
        damaged(pickle.dumps({"weights": [1, 2, 3]})),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: safetensors.torch.save_file({"x": torch.ones(1)}, path),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(model, tmp_path, spoil):
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, model, {})
    spoil(path)
    for read in (checkpoint.load, checkpoint.describe):
        with pytest.raises(CheckpointError, match=r"m\.safetensors") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_the_configuration_are_refused(model, tmp_path):
    path = tmp_path / "m.safetensors"
    model.ctc_head = torch.nn.Linear(32, 3)
    checkpoint.save(path, model, {})
    with pytest.raises(CheckpointError, match="does not fit together") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: no such checkpoint"):
        checkpoint.load(tmp_path / "gone.safetensors")


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(model, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, model, {"attempt": 1})
    before = path.read_bytes()

    monkeypatch.setattr(files, "uuid4", lambda: SimpleNamespace(hex="a"))
    (tmp_path / ".a-m.safetensors").symlink_to("/dev/full")  # it refuses every byte, as a full disk does
    with pytest.raises(WriteError, match=r"m\.safetensors: cannot be written: No space left on device"):
        checkpoint.save(path, model, {"attempt": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
