from __future__ import annotations

from examples import waveforms

from asr.decoding import DecodingOptions, decode
from asr.tokenizer import BLANK


def test_silence_for_ctc_is_silence_for_the_decoder(model):
    waveform, lengths = waveforms("1737-146161-0009")
    model.ctc_head.bias.data[BLANK] = 1e4  # CTC hears nothing, whatever the decoder would like to write
    encoder_out, frames = model.encode(waveform, lengths)
    ((best,),) = decode(model, encoder_out, frames, DecodingOptions(mode="attention", beam_size=1))
    assert best.tokens == ()
