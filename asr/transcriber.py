"""Audio to transcript: the one place where reading, chunking, listening and searching are joined up."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.alignment import Alignment, Spelling, align, spell_text, spell_tokens
from asr.audio import Source, duration, stream
from asr.batching import group_by_length
from asr.decoding import DecodingOptions, Fusion, Hypothesis, decode
from asr.decoding.recommended import search_options
from asr.errors import AsrError, AudioError, ConfigError, DataError
from asr.model import checkpoint
from asr.model.recognizer import Recognizer
from asr.samples import SAMPLE_RATE
from asr.segmentation import LONGEST, Chunk, plan_chunks
from asr.threads import in_threads
from asr.transcript import Segment, Span, Transcript
from asr.voice_activity import load_voice_activity

log = logging.getLogger(__name__)

EMBEDDED = Path(__file__).parent / "pretrained" / "english.safetensors"
BATCH_SECONDS = 160.0  # padded audio decoded at once: more gains little on a CPU
WINDOW_SECONDS = 320.0  # speech collected before it is sorted by length into batches; bounds the memory of a long file
LONGEST_ALIGNED = 1200.0  # seconds: time and memory of an alignment grow with the square of it

Found = tuple[Hypothesis, Alignment | None]


class Transcriber:
    """Turns audio files into transcripts. Threads may share one.

    Args:
        model: a recogniser in evaluation mode, on the device it shall run on.
        options: how texts are searched for.
        name: what transcripts call the model.
        vad: whether to decode only where someone speaks; without, noise and music may become words.
        batch_seconds: most padded audio decoded at once.

    Raises:
        ConfigError: a file that the options name cannot be read.
    """

    def __init__(
        self,
        model: Recognizer,
        options: DecodingOptions | None = None,
        name: str = "",
        vad: bool = True,
        batch_seconds: float = BATCH_SECONDS,
    ) -> None:
        self.model = model
        self.options = options or DecodingOptions()
        self.fusion = Fusion.of(self.options, model.tokenizer)  # whatever becomes of the files, texts stay the same
        self.name = name
        self.voice = load_voice_activity() if vad else None
        self.batch_seconds = batch_seconds

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        device: str = "auto",
        mode: str | Mapping[str, Any] | DecodingOptions | None = None,
        vad: bool = True,
    ) -> Transcriber:
        """Read a checkpoint.

        Args:
            path: a checkpoint of this package; None or `embedded` for the embedded English model.
            device: `auto`, `cpu` or `cuda`.
            mode: a decoding mode, or all the search's options, or some of them by name; what is not said is as the
                checkpoint recommends for that mode, else the default.
            vad: whether to decode only where someone speaks.

        Raises:
            CheckpointError: the checkpoint cannot be read.
            ConfigError: there is no such device or mode, or a file that the options name cannot be read.
        """
        path = checkpoint_file(path)
        model, about = checkpoint.load(path, choose_device(device))
        options = search_options(about, mode, path)
        name = path.absolute().parent.name if path.stem == "model" else path.stem  # every run's file is called that
        return cls(model, options, name, vad)

    def transcribe(
        self,
        source: Source,
        *,
        word_timestamps: bool = False,
        channel: int | None = None,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> Transcript:
        """Transcribe one recording of any length, in memory that does not grow with it.

        The result depends on the samples and the model alone: not on earlier calls, other threads or other files.

        Args:
            source: path of an audio or video file, or samples with their rate: `(array, sample_rate)`.
            word_timestamps: whether segments tell when each word was said, and how sure the model is of it.
            channel: the one to transcribe, counted from 1; None for the mean of all.
            progress: called every few minutes of audio with the seconds done since; what it raises ends the work.

        Returns:
            The transcript; its spans account for every second. A stretch whose decoding fails is a span of kind
            `failed` with its reason, and the rest is transcribed; so is what a damaged or truncated file lacks.

        Raises:
            AudioError: the file cannot be read, not even its beginning.
            InputTypeError: the source is no audio, or an array without its rate.
        """
        name = str(source) if isinstance(source, str | Path) else "array"
        segments: list[Segment] = []
        spans: list[Span] = []
        try:
            for new_segments, new_spans in self._windows(source, channel, word_timestamps):
                segments += new_segments
                spans += new_spans
                progress(new_spans[-1].end - new_spans[0].start)
        except AudioError as error:
            if not spans:
                raise
            reason = str(error).removeprefix(f"{name}: ")
            spans.append(Span(spans[-1].end, max(spans[-1].end, _announced(source)), "failed", reason))
        spans = _joined(spans)
        return Transcript(name, spans[-1].end, tuple(segments), tuple(spans), self.name, channel=channel)

    def stream(self, source: Source, *, word_timestamps: bool = False, channel: int | None = None) -> Iterator[Segment]:
        """Transcribe one recording and yield its segments while the rest is still to be heard.

        Args:
            source: as for `transcribe`.
            word_timestamps: as for `transcribe`.
            channel: as for `transcribe`.

        Yields:
            The segments of `transcribe`, in order. Of a stretch whose decoding fails there is none, and a warning.

        Raises:
            AudioError: the file cannot be read, once that place is reached.
            InputTypeError: the source is no audio, or an array without its rate.
        """
        for segments, spans in self._windows(source, channel, word_timestamps):
            yield from segments
            for span in spans:
                if span.kind == "failed":
                    log.warning("%.1f to %.1f s could not be decoded: %s", span.start, span.end, span.reason)

    def transcribe_batch(self, sources: Sequence[Source], jobs: int = 1) -> list[Transcript | AsrError]:
        """Transcribe several recordings; one that cannot be read does not stop the others.

        Args:
            sources: each as for `transcribe`.
            jobs: how many to work on at once, in threads; the results do not depend on it.

        Returns:
            For each source, in order, its transcript, or the error that `transcribe` would raise.
        """

        def attempt(source: Source) -> Transcript | AsrError:
            try:
                return self.transcribe(source)
            except AsrError as error:
                return error.without_frames()

        return list(in_threads(attempt, sources, jobs))

    def align(self, source: Source, text: str, *, channel: int | None = None) -> Transcript:
        """Find out when each word of a known text is said.

        Args:
            source: as for `transcribe`, LONGEST_ALIGNED seconds at most.
            text: what is said, word for word. Its words are shown as they are written and aligned as the model's
                tokenizer normalises them.
            channel: as for `transcribe`.

        Returns:
            A transcript of one segment, with its words.

        Raises:
            AudioError: the file cannot be read or is too long.
            DataError: the text is empty, too long for the audio, or cannot be written in the model's vocabulary.
        """
        name = str(source) if isinstance(source, str | Path) else "array"
        chunks = []
        for chunk in plan_chunks(stream(source, LONGEST, channel), None):
            chunks.append(chunk)
            if chunk.end > LONGEST_ALIGNED:
                limit = f"{LONGEST_ALIGNED / 60:.0f} minutes"
                raise AudioError(f"{name}: longer than {limit}, which are aligned in one piece: cut audio and text")
        spellings = spell_text(self.model.tokenizer, text)
        if not any(self.model.tokenizer.decode(spelling.tokens) for spelling in spellings):
            raise DataError(f"{name}: no word of the text can be written in the model's vocabulary")
        times, rows = [], []
        for chunk in chunks:
            with torch.inference_mode():
                rows.append(self.model.ctc_log_probs(self._encode([chunk.waveform])[0])[0].cpu())
            times.append(chunk.start + self._frame_times(len(rows[-1])))
        waveform = np.concatenate([chunk.waveform for chunk in chunks])
        found = self._align(torch.cat(rows), np.concatenate(times), waveform, spellings)
        if found.spread:
            raise DataError(f"{name}: the text has more tokens than the audio has frames: is it this audio's text?")
        end = chunks[-1].end
        tokens = tuple(token for spelling in spellings for token in spelling.tokens)
        segment = Segment(" ".join(text.split()), 0.0, end, tokens, found.log_prob, words=found.words)
        return Transcript(name, end, (segment,), (Span(0.0, end, "decoded"),), self.name, channel=channel)

    @torch.inference_mode()
    def decode_waveforms(self, waveforms: list[NDArray[np.float32]]) -> list[Hypothesis]:
        """Find the best text of each waveform, all in one batch.

        Args:
            waveforms: mono samples at 16 kHz, each of shape (S,).

        Returns:
            One hypothesis for each waveform.
        """
        return self._search(waveforms)[0] if waveforms else []

    @torch.inference_mode()
    def decode_words(self, waveforms: list[NDArray[np.float32]]) -> list[tuple[Hypothesis, Alignment]]:
        """Find the best text of each waveform, all in one batch, and the times and confidences of its words.

        Args:
            waveforms: mono samples at 16 kHz, each of shape (S,).

        Returns:
            For each waveform a hypothesis and its words.
        """
        if not waveforms:
            return []
        found, encoder_out, frames = self._search(waveforms)
        log_probs = self.model.ctc_log_probs(encoder_out).cpu()
        rows = zip(found, log_probs, frames.tolist(), waveforms, strict=True)
        return [(best, self._words(best, scores[:length], waveform)) for best, scores, length, waveform in rows]

    def attempt(self, waveforms: list[NDArray[np.float32]], words: bool) -> list[Found | str]:
        """Decode a batch; if that raises, each row alone, so that a row takes no other with it.

        Args:
            waveforms: mono samples at 16 kHz, each of shape (S,).
            words: whether to place the words, too.

        Returns:
            For each waveform a hypothesis and its words, or why there are none.
        """
        try:
            found = (
                self.decode_words(waveforms) if words else [(best, None) for best in self.decode_waveforms(waveforms)]
            )
        except Exception as error:  # whatever it is, it is written into the transcript
            found, reason = None, f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        # Out here the error is gone, and with it all that its frames held of the batch's memory.
        if found is None:
            if len(waveforms) == 1:
                return [reason]
            return [result for waveform in waveforms for result in self.attempt([waveform], words)]
        return [each if math.isfinite(each[0].score) else "the model's scores are not finite" for each in found]

    def _search(self, waveforms: list[NDArray[np.float32]]) -> tuple[list[Hypothesis], Tensor, Tensor]:
        encoder_out, frames = self._encode(waveforms)
        return (
            [best for best, *_ in decode(self.model, encoder_out, frames, self.options, self.fusion)],
            encoder_out,
            frames,
        )

    def _encode(self, waveforms: list[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
        device = next(self.model.parameters()).device
        tensors = [torch.from_numpy(waveform) for waveform in waveforms]
        padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(device)
        return self.model.encode(padded, torch.tensor([len(waveform) for waveform in waveforms], device=device))

    def _words(self, hypothesis: Hypothesis, log_probs: Tensor, waveform: NDArray[np.float32]) -> Alignment:
        spellings = spell_tokens(self.model.tokenizer, hypothesis.tokens)
        return self._align(log_probs, self._frame_times(len(log_probs)), waveform, spellings)

    def _align(
        self,
        log_probs: Tensor,
        times: NDArray[np.float64],
        waveform: NDArray[np.float32],
        spellings: Sequence[Spelling],
    ) -> Alignment:
        """Place the words, with confidences as the search's options have them."""
        found = align(log_probs, times, waveform, spellings, self.model.tokenizer)
        power = self.options.confidence_power
        return found._replace(words=tuple(replace(word, confidence=word.confidence**power) for word in found.words))

    def _frame_times(self, frames: int) -> NDArray[np.float64]:
        """When the middle of each encoder frame is, in seconds."""
        return np.arange(frames, dtype=np.float64) * self.model.frame_seconds

    def _windows(self, source: Source, channel: int | None, words: bool) -> Iterator[tuple[list[Segment], list[Span]]]:
        """Transcribe a few minutes after the other; yields the segments and spans of each, in order."""
        # Blocks are whole frames of the voice detector, and the same for files and arrays: so are the results.
        damage: list[AudioError] = []
        blocks = _until_damage(stream(source, LONGEST, channel), damage)
        for window in _collected(plan_chunks(blocks, self.voice), WINDOW_SECONDS):
            results = self._decode_chunks([chunk for chunk in window if chunk.speech], words)
            segments, spans = [], []
            for chunk in window:
                result = next(results) if chunk.speech else None
                if isinstance(result, tuple):
                    segments.append(self._segment(chunk, *result))
                kind = "decoded" if isinstance(result, tuple) else "failed" if result else "non_speech"
                spans.append(Span(chunk.start, chunk.end, kind, result if isinstance(result, str) else None))
            yield [segment for segment in segments if segment.text], spans
        if damage:  # not before what was there has been listened to
            raise damage[0]

    def _decode_chunks(self, chunks: list[Chunk], words: bool) -> Iterator[Found | str]:
        """Decode in batches of like lengths; gives a hypothesis, or why there is none, for each chunk in order."""
        results: dict[int, Found | str] = {}
        samples = [len(chunk.waveform) for chunk in chunks]
        for batch in group_by_length(samples, self.batch_seconds * SAMPLE_RATE):
            waveforms = [chunks[row].waveform for row in batch]
            results |= zip(batch, self.attempt(waveforms, words), strict=True)
        return (results[row] for row in range(len(chunks)))

    def _segment(self, chunk: Chunk, hypothesis: Hypothesis, alignment: Alignment | None) -> Segment:
        text = self.model.tokenizer.decode(hypothesis.tokens)
        segment = Segment(text, chunk.start, chunk.end, hypothesis.tokens, hypothesis.score, hypothesis.fallback)
        if alignment is None:
            return segment
        words = tuple(
            replace(word, start=chunk.start + word.start, end=min(chunk.start + word.end, chunk.end))
            for word in alignment.words
        )
        return replace(segment, words=words, spread=alignment.spread)


def checkpoint_file(name: Path | str | None) -> Path:
    """Give the file that a name means: None and `embedded` are the English model of the package."""
    return EMBEDDED if not name or str(name) == "embedded" else Path(name)


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device that is there.

    Raises:
        ConfigError: the name is unknown, or `cuda` is asked for where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is available here: use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _until_damage(blocks: Iterable[NDArray[np.float32]], damage: list[AudioError]) -> Iterator[NDArray[np.float32]]:
    """Yield blocks as long as they can be read; why they cannot is put into `damage`."""
    try:
        yield from blocks
    except AudioError as error:
        damage.append(error)


def _announced(source: Source) -> float:
    """Tell how long the header of a damaged file says that it is, in seconds; 0 where it does not say."""
    try:
        return duration(source)
    except AudioError:
        return 0.0


def _collected(chunks: Iterable[Chunk], seconds: float) -> Iterator[list[Chunk]]:
    """Group consecutive chunks that together last `seconds` or a little more."""
    group: list[Chunk] = []
    for chunk in chunks:
        group.append(chunk)
        if chunk.end - group[0].start >= seconds:
            yield group
            group = []
    if group:
        yield group


def _joined(spans: list[Span]) -> list[Span]:
    """Join neighbouring spans without speech: they are cut by the way memory is bounded, not by the audio."""
    joined = spans[:1]
    for span in spans[1:]:
        if joined[-1].kind == span.kind == "non_speech":
            joined[-1] = Span(joined[-1].start, span.end, "non_speech")
        else:
            joined.append(span)
    return joined
