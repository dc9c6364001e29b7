from __future__ import annotations

import torch
from examples import waveforms

from asr.decoding import DecodingOptions, decode
from asr.tokenizer import BLANK, END, START


def test_step_by_step_decoding_equals_rescoring_every_prefix(model):
    """The oracle runs the whole decoder anew for every token, without a cache."""
    waveform, lengths = waveforms("1737-146161-0009")
    model.ctc_head.bias.data[BLANK] = -1.0
    encoder_out, frames = model.encode(waveform, lengths)
    ((best,),) = decode(model, encoder_out, frames, DecodingOptions(mode="attention", beam_size=1))
    tokens = [START]
    for _ in range(len(best.tokens) + 1):
        logits = model.decoder(torch.tensor([tokens]), encoder_out, frames)[0, -1]
        logits[[BLANK, START]] = -torch.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] == END:
            break
    if best.fallback is None:
        assert list(best.tokens) == tokens[1:-1]
    else:
        assert len(tokens) - 1 > len(best.tokens) or END not in tokens


def test_silence_for_ctc_is_silence_for_the_decoder(model):
    waveform, lengths = waveforms("1737-146161-0009")
    model.ctc_head.bias.data[BLANK] = 1e4  # CTC hears nothing, whatever the decoder would like to write
    encoder_out, frames = model.encode(waveform, lengths)
    ((best,),) = decode(model, encoder_out, frames, DecodingOptions(mode="attention", beam_size=1))
    assert best.tokens == ()
