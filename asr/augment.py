"""Changes to a waveform that keep its words: more voices out of the same recordings."""

from __future__ import annotations

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray


def change_speed(waveform: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Play a waveform faster or slower; pitch and tempo change together (Ko et al. 2015, "Audio augmentation").

    Args:
        waveform: mono samples, shape (S,), float32.
        factor: 1.1 is ten per cent faster; rounded to a hundredth.

    Returns:
        Samples, shape (about S / factor,), float32; the input itself when the factor is 1.
    """
    hundredths = round(100 * factor)
    if hundredths == 100:
        return waveform
    # Reading a signal as if it had been recorded at `factor` times its rate, then resampling to the true rate.
    return torchaudio.functional.resample(torch.from_numpy(waveform), hundredths, 100).numpy()
