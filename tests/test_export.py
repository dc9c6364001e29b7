from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from examples import waveforms

from asr.export import Posteriors, export_onnx
from asr.tokenizer import BLANK


def test_onnx_gives_the_posteriors_of_torch(model, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    export_onnx(model.eval(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]  # weights and all
    session = runtime.InferenceSession(path)
    about = session.get_modelmeta().custom_metadata_map
    tokens = json.loads(about["tokens"])
    assert tokens == [model.tokenizer.piece(token) for token in range(len(model.tokenizer))]
    assert json.loads(about["blank"]) == BLANK
    assert json.loads(about["features"])["mels"] == model.config.mels

    waveform, samples = waveforms("1737-146161-0009", "3947-13262-0033", "6848-252323-0023")
    for rows in (slice(0, 1), slice(1, 2), slice(0, 3)):  # short, long, and padded side by side
        length = int(samples[rows].max())
        with torch.inference_mode():
            features, lengths = model.log_mel(waveform[rows, :length], samples[rows])
            expected, frames = Posteriors(model)(features, lengths)
        found, counts = session.run(None, {"features": features.numpy(), "lengths": lengths.numpy()})
        assert counts.tolist() == frames.tolist()
        assert found.shape == expected.shape
        assert np.abs(found - expected.numpy()).max() < 1e-4
