"""What a model attended to, as one page for each stretch it decoded, which needs no other file and no network.

The weights are those of the explicit attention path (`asr.model.inspection`), while the encoder hears the stretch and
the decoder reads the text that was found (teacher forcing: for every token it is told the right ones before).

In the page a row of weights is one byte k and then 8-bit parts, each of 2^-k. The parts are differences of the rounded
running sum, so that they add up to what the weights add up to, however coarse they are.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from asr.alignment import spell_tokens
from asr.audio import Source, stream
from asr.evaluation.report import fill_page
from asr.features import FFT_SIZE, FRAME_SHIFT, LogMel
from asr.files import write_file
from asr.losses import decoder_inputs
from asr.model.inspection import attention_weights
from asr.model.recognizer import Recognizer
from asr.samples import SAMPLE_RATE
from asr.tokenizer import BLANK
from asr.transcript import Segment, Span, Transcript

TEMPLATE = Path(__file__).with_name("viewer.html")
MOST_PAGES = 12  # of one recording; at 20 s and about a megabyte each
MOST_BYTES = 1_400_000  # compressed, of each kind of attention; beyond it neighbouring frames share a value
POSTERIOR = 0.1  # tokens that CTC never holds for more probable than this are left out
MOST_TOKENS = 60  # that CTC's curves are shown of
DEEPEST = 12.0  # natural logarithms of power below the loudest that the spectrogram shows: 52 dB

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Pages(NamedTuple):
    """What was written about one recording."""

    paths: list[Path]
    """The pages, in order; none where no one speaks."""
    left_out: int
    """Stretches after the last page's."""


def write_pages(folder: Path, stem: str, model: Recognizer, source: Source, transcript: Transcript) -> Pages:
    """Write a page about each of the first MOST_PAGES stretches that were decoded.

    Args:
        folder: where to; made if need be.
        stem: the pages are called `STEM.html`, or `STEM.part-1.html` and so on where there are several.
        model: the recogniser that the transcript is of, in evaluation mode.
        source: the recording.
        transcript: what was found in it, with the words' times.

    Raises:
        AudioError: the recording cannot be read any more.
        WriteError: a page cannot be written.
    """
    decoded = [span for span in transcript.spans if span.kind == "decoded"]
    spans = decoded[:MOST_PAGES]
    names = [f"{stem}.part-{number}.html" if len(spans) > 1 else f"{stem}.html" for number in range(1, len(spans) + 1)]
    found = {segment.start: segment for segment in transcript.segments}
    pages = []
    for number, (span, waveform) in enumerate(_stretches(source, spans, transcript.channel)):
        silent = Segment("", span.start, span.end, (), 0.0)
        content = look_inside(model, waveform, found.get(span.start, silent))
        links = _links(names, number, len(decoded) - len(spans))
        pages.append((folder / names[number], _page(model, transcript, content, links)))
    for path, page in reversed(pages):  # where the first one is, `asr transcribe --resume` takes them all to be there
        write_file(path, page)
    return Pages([path for path, _ in pages], len(decoded) - len(spans))


@torch.inference_mode()
def look_inside(model: Recognizer, waveform: Floats, segment: Segment) -> dict[str, Any]:
    """Listen to one stretch again and keep what every part of the model makes of it.

    Args:
        model: a recogniser in evaluation mode.
        waveform: the stretch, mono samples at 16 kHz, shape (S,).
        segment: its text, tokens and words.

    Returns:
        What the page's script reads. `bands` are kHz and how far up the sound's picture they lie, 0 to 1. Each panel
        has its shape, the seconds at which its first frame begins, the seconds that a frame lasts, and its bytes,
        compressed: `mel` (T, M), `ctc` (tokens, T'), and with one more byte in front of each row `cross` (layers,
        heads, U + 1, T') and `encoder` (layers, heads, T', T').
    """
    device = next(model.parameters()).device
    samples = torch.from_numpy(waveform)[None].to(device)
    lengths = torch.tensor([len(waveform)], device=device)
    tokens = torch.tensor([segment.tokens], dtype=torch.int64, device=device).reshape(1, -1)
    with attention_weights(model) as weights:
        encoder_out, frames = model.encode(samples, lengths)
        model.decoder(decoder_inputs(tokens), encoder_out, frames)
    rows = {name: found[0].float().cpu().numpy() for name, found in weights.items()}
    features = model.log_mel(samples, lengths)[0][0].cpu().numpy()
    posteriors = model.ctc_log_probs(encoder_out)[0].exp().cpu().numpy()
    step = model.frame_seconds
    heard, labels = _heard(posteriors, model)
    return {
        "start": segment.start,
        "duration": len(waveform) / SAMPLE_RATE,
        "spread": segment.spread,
        "audio": _audio(waveform),
        "tokens": [model.tokenizer.piece(token) for token in segment.tokens] + ["end"],
        "words": _words(model, segment),
        "mel": _panel(_shades(features), FRAME_SHIFT / SAMPLE_RATE),
        "bands": _frequencies(model.log_mel),
        "ctc": _panel(heard, step) | {"labels": labels},
        "cross": _attention(
            [part for name, part in rows.items() if name.endswith("cross_attention")], step, square=False
        ),
        "encoder": _attention([part for name, part in rows.items() if name.startswith("encoder.")], step, square=True),
    }


def quantised(weights: Floats) -> Bytes:
    """Turn rows of weights (..., K) into bytes (..., 1 + K): k, then parts of 2^-k that sum to what the row sums to."""
    highest = weights.max(axis=-1, keepdims=True).clip(1e-6, 1.0)
    bits = np.floor(np.log2(255 / highest))
    reached = np.rint(np.cumsum(weights, axis=-1, dtype=np.float64) * 2.0**bits)
    return np.concatenate((bits, np.diff(reached, prepend=0.0)), axis=-1).astype(np.uint8)


def _attention(layers: list[Floats], step: float, square: bool) -> dict[str, Any]:
    """Pack the weights (heads, Q, K) of each layer, with more and more frames sharing a value until they fit."""
    shared = 1
    while True:
        packed = np.stack([quantised(_shared(layer, shared, square)) for layer in layers])
        panel = _panel(packed, step * shared, begin=-step / 2)
        if len(panel["data"]) <= MOST_BYTES * 4 / 3:
            return panel | {"shape": [*packed.shape[:3], packed.shape[3] - 1]}
        shared += 1


def _shared(weights: Floats, frames: int, square: bool) -> Floats:
    """Sum the weights of neighbouring keys, and take the mean of neighbouring queries where they are frames, too."""
    if square:
        first = np.arange(0, weights.shape[1], frames)
        counts = np.diff(first, append=weights.shape[1])[:, None]
        weights = np.add.reduceat(weights, first, axis=1) / counts
    return np.add.reduceat(weights, np.arange(0, weights.shape[2], frames), axis=2)


def _panel(values: Bytes, step: float, begin: float | None = None) -> dict[str, Any]:
    """Describe values over time; a frame is centred on its time, so that the first begins half a step before 0."""
    data = base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()
    return {"shape": list(values.shape), "begin": -step / 2 if begin is None else begin, "step": step, "data": data}


def _shades(features: Floats) -> Bytes:
    """Scale log-mel energies (T, M) to what can be seen: from a little under the quiet to the loudest."""
    highest = float(np.quantile(features, 0.999))
    lowest = max(float(np.quantile(features, 0.05)), highest - DEEPEST)
    return np.rint(255 * ((features - lowest) / max(highest - lowest, 1e-3)).clip(0, 1)).astype(np.uint8)


def _frequencies(log_mel: LogMel) -> list[tuple[int, float]]:
    """Give kHz to mark at the side of the spectrogram, and how far up they lie: where mel bands have their peaks."""
    peaks = log_mel.filterbank.argmax(dim=0).cpu().numpy() * SAMPLE_RATE / FFT_SIZE
    heights = (np.arange(len(peaks)) + 0.5) / len(peaks)
    return [(khz, round(float(np.interp(1000.0 * khz, peaks, heights)), 3)) for khz in (1, 2, 4)]


def _heard(posteriors: Floats, model: Recognizer) -> tuple[Bytes, list[str]]:
    """Choose the tokens that CTC hears, blank first: their posteriors (tokens, T') and how they are written."""
    highest = posteriors.max(axis=0)
    likely = [token for token in np.argsort(-highest).tolist() if token != BLANK and highest[token] >= POSTERIOR]
    chosen = [BLANK, *sorted(likely[:MOST_TOKENS], key=lambda token: int(posteriors[:, token].argmax()))]
    return np.rint(255 * posteriors[:, chosen].T).astype(np.uint8), [model.tokenizer.piece(token) for token in chosen]


def _words(model: Recognizer, segment: Segment) -> list[dict[str, Any]]:
    """Give the words with their times in the stretch and the rows of their tokens."""
    words, first = [], 0
    # What is spelled without a text, such as a mark of a word's start with no word behind it, is no word.
    spellings = spell_tokens(model.tokenizer, segment.tokens)
    for word, spelling in zip(segment.words, spellings, strict=True):
        while segment.tokens[first : first + len(spelling.tokens)] != spelling.tokens:
            first += 1
        last = first + len(spelling.tokens)
        times = {"start": round(word.start - segment.start, 3), "end": round(word.end - segment.start, 3)}
        words.append({"text": word.text, **times, "confidence": round(word.confidence, 3), "rows": [first, last]})
        first = last
    return words


def _audio(waveform: Floats) -> str:
    """Encode as FLAC: every browser plays it, and no codec's delay moves it against the panels."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.clip(-1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode()


def _stretches(source: Source, spans: Sequence[Span], channel: int | None) -> Iterator[tuple[Span, Floats]]:
    """Read the spans' samples, in order, keeping no more of the recording than one of them needs."""
    blocks = stream(source, 10.0, channel)
    held, first = np.zeros(0, dtype=np.float32), 0
    for span in spans:
        begin, end = (round(seconds * SAMPLE_RATE) for seconds in (span.start, span.end))
        while first + len(held) < end and (block := next(blocks, None)) is not None:
            held = np.concatenate((held, block))
            past = min(max(0, begin - first), len(held))
            held, first = held[past:], first + past
        yield span, held[begin - first : end - first]


def _links(names: list[str], number: int, left_out: int) -> str:
    """Write which part of the recording this is, and the way to its neighbours."""
    if len(names) == 1:
        return ""
    parts = [f"part {number + 1} of {len(names)}"]
    for label, other in (("← earlier", number - 1), ("later →", number + 1)):
        if 0 <= other < len(names):
            parts.append(f'<a href="./{escape(quote(names[other]))}">{label}</a>')
    if left_out and number + 1 == len(names):
        parts.append(f"{left_out} later stretches have no page")
    return f'<p class="soft parts">{" · ".join(parts)}</p>'


def _page(model: Recognizer, transcript: Transcript, content: dict[str, Any], links: str) -> str:
    encoder, decoder = model.config.encoder, model.config.decoder
    facts = (
        transcript.model,
        f"{encoder.kind.replace('e_b', 'E-B')} encoder, {encoder.layers} layers of {encoder.heads} heads, "
        f"{encoder.positions} positions, {10 * encoder.subsampling} ms frames",
        f"decoder, {decoder.layers} {'layer' if decoder.layers == 1 else 'layers'} of {decoder.heads} heads"
        + (", untrained (ctc_weight 1)" if model.config.loss.ctc_weight == 1 else ""),
        "" if transcript.channel is None else f"channel {transcript.channel}",
    )
    return fill_page(
        TEMPLATE,
        content,
        "data:",
        title=escape(Path(transcript.source).name),
        subtitle=escape(" · ".join(fact for fact in facts if fact)),
        links=links,
    )
