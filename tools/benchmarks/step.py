"""One toolkit's training step, timed: a program of its own, so that each toolkit runs in its own environment.

python tools/benchmarks/step.py asr|speechbrain|transformers     # prints a JSON list of seconds for each step
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

UTTERANCES, SECONDS, TOKENS, VOCABULARY = 8, 10, 40, 1000
AUDIO_SECONDS = UTTERANCES * SECONDS
RATE = 16_000


def _audio() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(UTTERANCES, SECONDS * RATE, generator=draw)
    return waveform, torch.randint(5, VOCABULARY, (UTTERANCES, TOKENS), generator=draw)


def build_asr() -> tuple[Any, Any]:
    """Make this package's model and batch."""
    from asr.model.config import DecoderConfig, EncoderConfig, ModelConfig
    from asr.model.recognizer import Batch, Recognizer

    class Vocabulary:  # stands in for a tokenizer, of which the model needs the size only
        def __len__(self) -> int:
            return VOCABULARY

    encoder = EncoderConfig(layers=12, dim=256, heads=4, feed_forward=1024, kernel=31, subsampling_channels=64)
    decoder = DecoderConfig(layers=6, heads=4, feed_forward=1024)
    model = Recognizer(ModelConfig(encoder=encoder, decoder=decoder), Vocabulary())  # type: ignore[arg-type]
    waveform, tokens = _audio()
    lengths = torch.full((UTTERANCES,), waveform.shape[1])
    token_lengths, seeds = torch.full((UTTERANCES,), TOKENS), torch.arange(UTTERANCES)
    batch = Batch([str(row) for row in range(UTTERANCES)], waveform, lengths, tokens, token_lengths, seeds)
    return model.train(), batch


def asr_step(device: str = "cpu", compiled: bool = False) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Make this package's step; on a GPU in bfloat16 where autocast allows it."""
    model, batch = build_asr()
    model.to(device)
    batch = batch._replace(**{name: x.to(device) for name, x in batch._asdict().items() if isinstance(x, Tensor)})
    if compiled:
        for block in (*model.encoder.blocks, *model.decoder.blocks):
            block.compile(dynamic=True)

    def loss() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            losses = model.loss(batch)
        return losses.total / losses.tokens

    return model, loss


def speechbrain_step() -> tuple[nn.Module, Callable[[], Tensor]]:
    """Make SpeechBrain's step, put together as its LibriSpeech conformer recipe does, with rotary positions."""
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
    from speechbrain.nnet.losses import ctc_loss, kldiv_loss
    from speechbrain.processing.features import InputNormalization

    features, normalize = Fbank(sample_rate=RATE, n_fft=400, n_mels=80), InputNormalization(norm_type="sentence")
    front = ConvolutionFrontEnd(
        input_shape=(8, 10, 80), num_blocks=2, num_layers_per_block=1, out_channels=(64, 32), kernel_sizes=(3, 3),
        strides=(2, 2), residuals=(False, False),
    )  # fmt: skip
    body = TransformerASR(
        input_size=640, tgt_vocab=VOCABULARY, d_model=256, nhead=4, num_encoder_layers=12, num_decoder_layers=6,
        d_ffn=1024, dropout=0.1, encoder_module="conformer", attention_type="RoPEMHA", kernel_size=31,
        normalize_before=True, causal=False,
    )  # fmt: skip
    model = nn.ModuleList([front, body, nn.Linear(256, VOCABULARY), nn.Linear(256, VOCABULARY)])
    waveform, tokens = _audio()
    whole = torch.ones(UTTERANCES)
    start, end = torch.full((UTTERANCES, 1), 1), torch.full((UTTERANCES, 1), 2)
    inputs, targets = torch.cat((start, tokens), dim=1), torch.cat((tokens, end), dim=1)

    def loss() -> Tensor:
        mel = normalize(features(waveform), whole)
        encoded, decoded = body(front(mel), inputs, whole, pad_idx=0)
        ctc = ctc_loss(model[2](encoded).log_softmax(-1), tokens, whole, whole, blank_index=0)
        attention = kldiv_loss(model[3](decoded).log_softmax(-1), targets, length=whole, label_smoothing=0.1)
        return 0.3 * ctc + 0.7 * attention

    return model, loss


def transformers_step() -> tuple[nn.Module, Callable[[], Tensor]]:
    """Make the step of transformers' Parakeet, a FastConformer with CTC: no decoder, so it has less to do."""
    from transformers import ParakeetCTCConfig, ParakeetForCTC

    encoder = {
        "hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 1024,
        "conv_kernel_size": 31, "subsampling_factor": 4, "subsampling_conv_channels": 256, "num_mel_bins": 80,
        "dropout": 0.1, "layerdrop": 0.0,
    }  # fmt: skip
    model = ParakeetForCTC(ParakeetCTCConfig(vocab_size=VOCABULARY, pad_token_id=0, encoder_config=encoder))
    _, tokens = _audio()
    features = torch.randn(UTTERANCES, SECONDS * 100 + 1, 80)
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    return model, lambda: model(input_features=features, attention_mask=mask, labels=tokens).loss


def time_part(part: Callable[..., Any], inputs: tuple[object, ...], repeats: int = 3) -> float:
    """Seconds of forward and backward of a part of a model; the best of a few, since others may disturb."""
    times = []
    for _ in range(repeats):
        leaves = tree_map_only(Tensor, lambda x: x.detach().requires_grad_(x.is_floating_point()), inputs)
        began = time.perf_counter()
        out = part(*leaves)
        out = out[0] if isinstance(out, tuple) else out
        out.backward(torch.ones_like(out))
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Time some steps and print the seconds of each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("toolkit", choices=("asr", "speechbrain", "transformers"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda for asr alone, in bfloat16")
    parser.add_argument("--compile", action="store_true", help="compile the blocks of asr's model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    ours = functools.partial(asr_step, arguments.device, arguments.compile)
    made = {"asr": ours, "speechbrain": speechbrain_step, "transformers": transformers_step}
    model, loss = made[arguments.toolkit]()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    times = []
    for _ in range(arguments.steps + 2):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    print(json.dumps(times[2:]))


if __name__ == "__main__":
    main()
