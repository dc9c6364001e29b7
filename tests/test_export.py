from __future__ import annotations

import json

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from examples import waveforms

from asr.export import Posteriors, describe, export_onnx
from asr.tokenizer import BLANK


def test_the_metadata_suffice_to_make_the_features(model, manifest):
    waveform = manifest[0].waveform()
    about = json.loads(describe(model)["features"])
    size, length, start = about["fft_size"], about["frame_length"], about["window_start"]
    window = np.zeros(size)
    window[start : start + length] = scipy.signal.get_window("hann", length)  # periodic
    padded = np.pad(waveform, size // 2)
    begins = np.arange(len(waveform) // about["frame_shift"] + 1) * about["frame_shift"]
    power = np.abs(np.fft.rfft(window * padded[begins[:, None] + np.arange(size)])) ** 2
    low, high = about["mel_hertz"]
    mel = librosa.filters.mel(
        sr=about["sample_rate"], n_fft=size, n_mels=about["mels"], fmin=low, fmax=high
    )  # Slaney's
    theirs = np.log(np.maximum(power @ mel.T, 1e-6))
    ours, _ = model.log_mel(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    np.testing.assert_allclose(ours[0], theirs, atol=1e-3)
    assert about["value"].endswith("max(power, 1e-06)")
    features = torch.zeros(1, about["fewest_frames"], about["mels"])
    assert Posteriors(model.eval())(features, torch.tensor([features.shape[1]]))[1] > 0


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
