from __future__ import annotations

import numpy as np
import pytest

from asr.augment import change_speed


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.25])
def test_speed_moves_a_tones_pitch_and_length(factor):
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 500 * time).astype(np.float32)
    changed = change_speed(tone, factor)
    assert changed.dtype == np.float32
    assert len(changed) == pytest.approx(16000 / factor, abs=1)
    peak = np.abs(np.fft.rfft(changed)).argmax() * 16000 / len(changed)
    assert peak == pytest.approx(500 * factor, abs=2)


def test_speed_one_changes_nothing():
    waveform = np.ones(10, dtype=np.float32)
    assert change_speed(waveform, 1.0) is waveform
