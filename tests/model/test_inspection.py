from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from examples import small_config, waveforms

from asr.model.attention import MultiHeadAttention
from asr.model.inspection import attention_weights
from asr.model.recognizer import Recognizer


def test_every_attention_layer_is_recorded_and_each_row_sums_to_one(tokenizer):
    torch.manual_seed(0)
    model = Recognizer(small_config(positions="relative"), tokenizer).eval()
    waveform, lengths = waveforms("1737-146161-0009", "3947-13262-0016")
    plain, _ = model.encode(waveform, lengths)
    with attention_weights(model) as weights:
        encoder_out, frames = model.encode(waveform, lengths)
        model.decoder(torch.tensor([[2, 5, 6], [2, 7, 8]]), encoder_out, frames)
    assert len(weights) == 2 + 2 * 2  # two encoder layers, and two in each of two decoder layers
    for name, weight in weights.items():
        assert weight.shape[:2] == (2, 2), name
        torch.testing.assert_close(weight.sum(-1), torch.ones(weight.shape[:-1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder_out, plain, atol=1e-5, rtol=1e-4)
    weights.clear()
    model.encode(waveform, lengths)
    assert not weights  # nothing is recorded afterwards


def test_what_other_threads_run_is_not_recorded():
    """They run the same layer before, between and after, and while the hooks come and go."""
    torch.manual_seed(0)
    layer = MultiHeadAttention(8, 2)
    inputs = torch.randn(3, 1, 5, 8)

    def attend(x):
        return layer(x, layer.project(x), None)

    with torch.no_grad():
        plain, seen = [attend(x)[0] for x in inputs], []
        for x in inputs:
            with attention_weights(layer) as weights:
                attend(x)
            seen.append(weights[""])
        stop = threading.Event()

        @torch.no_grad()
        def others() -> list[tuple]:
            found = [attend(inputs[0])]
            while not stop.is_set():
                found.append(attend(inputs[0]))
            return found

        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(others) for _ in range(2)]
            try:
                for number in range(300):
                    x = inputs[1 + number % 2]
                    with attention_weights(layer) as weights:
                        out, _ = attend(x)
                        torch.testing.assert_close(out, plain[1 + number % 2], atol=1e-6, rtol=1e-5)
                        assert torch.equal(weights[""], seen[1 + number % 2])
            finally:
                stop.set()
        for future in running:
            for out, weights in future.result():
                assert weights is None
                torch.testing.assert_close(out, plain[0], atol=1e-6, rtol=1e-5)
