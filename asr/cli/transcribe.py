"""`asr transcribe`: recordings to text."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.terminal import (
    BeamSize,
    Decoding,
    Device,
    Format,
    Hotwords,
    LanguageModelFile,
    MaxCueSeconds,
    MaxLineCount,
    MaxLineWidth,
    MinGap,
    Model,
    OutputDir,
    SearchSettings,
    complain,
    console,
    progress,
    search_settings,
)
from asr.errors import AsrError, ConfigError

if TYPE_CHECKING:
    from asr.inputs import Recording
    from asr.transcriber import Transcriber
    from asr.transcript import Transcript
    from asr.writers import SubtitleOptions

MARKED = 2.0  # seconds by which a transcript that is not whole is made older than its recording; FAT counts in twos


Files = Annotated[
    list[str],
    typer.Argument(
        help="Audio or video files, folders (searched recursively), patterns in quotes, or - for standard input.",
        metavar="FILE...",
    ),
]
WordTimestamps = Annotated[
    bool, typer.Option("--word-timestamps", help="Time and confidence of each word, in the JSON.")
]
Channels = Annotated[str, typer.Option("--channels", help="mix them, or split: one transcript for each.")]
VoiceDetector = Annotated[bool, typer.Option("--vad/--no-vad", help="Decode only where someone speaks, or everything.")]
Resume = Annotated[bool, typer.Option("--resume", help="Skip inputs whose output is in --output-dir and not older.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Files to work on at once; the output is the same.")]
Attention = Annotated[
    Path | None, typer.Option("--attention", help="Write pages here that show where each head listened.")
]


def transcribe(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    decoding: Decoding = None,
    beam_size: BeamSize = None,
    language_model: LanguageModelFile = None,
    hotwords: Hotwords = None,
    search: SearchSettings = None,
    format: Format = "txt",
    output_dir: OutputDir = None,
    word_timestamps: WordTimestamps = False,
    max_line_width: MaxLineWidth = 42,
    max_line_count: MaxLineCount = 2,
    max_cue_seconds: MaxCueSeconds = 7.0,
    min_gap: MinGap = 0.08,
    channels: Channels = "mix",
    vad: VoiceDetector = True,
    resume: Resume = False,
    jobs: Jobs = 1,
    attention: Attention = None,
) -> None:
    """Turn recordings into text.

    The text goes to standard output (or into --output-dir, in the folders of the inputs), everything else to standard
    error. A file that cannot be read is reported and the others are still done; the exit code is then 1.

    Exit codes: 0 all done; 1 some input failed, the rest was done; 2 the command itself is wrong; 130 interrupted.
    What is finished stays in every case, and --resume goes on from there.
    """
    from asr import writers
    from asr.config import check_choice
    from asr.transcriber import EMBEDDED, Transcriber, checkpoint_file

    # Before hours of work, not after.
    formats = writers.parse_formats(format, output_dir)
    subtitles = writers.SubtitleOptions(max_line_width, max_line_count, max_cue_seconds, min_gap)
    word_timestamps |= attention is not None or not writers.NEED_WORDS.isdisjoint(formats)
    check_choice("--channels", channels, ("mix", "split"))
    _check_output(output_dir, resume)
    _check_output(attention, False)
    settings = search_settings(decoding, beam_size, language_model, hotwords, search)
    transcriber = Transcriber.load(model, device, settings, vad)
    if checkpoint_file(model) == EMBEDDED:
        console.print(_embedded_notice(), style="dim")
    work = _Work(transcriber, formats, word_timestamps, subtitles, output_dir, channels == "split", resume, attention)
    raise typer.Exit(_run(work, files, jobs))


def _run(work: _Work, files: list[str], jobs: int) -> int:
    """Do the work on all that the command line names; gives the exit code."""
    from asr.inputs import find_recordings
    from asr.threads import in_threads

    with _standard_input(files) as (names, work.spooled):
        recordings, errors = find_recordings(names)
        if work.resume and (twin := next((each for each in recordings if each.numbered), None)):
            raise ConfigError(f"{twin.path}: --resume cannot tell inputs of one name apart: name their folder instead")
        work.check_outputs(recordings)
        for error in errors:
            complain(error)
        with progress("Transcribing", len(recordings)) as work.advance:
            for text, complaints in in_threads(work, recordings, jobs, work.stop):
                errors += complaints
                for error in complaints:
                    complain(error)
                if text:
                    _print(text)
    if work.skipped:
        console.print(f"{len(work.skipped)} outputs were there already and are newer than their inputs", style="dim")
    return 1 if errors else 0


@dataclass
class _Work:
    """What is done with each recording, in any thread."""

    transcriber: Transcriber
    formats: tuple[str, ...]
    word_timestamps: bool
    subtitles: SubtitleOptions
    output_dir: Path | None
    split: bool
    resume: bool
    attention: Path | None
    """Where pages about the model's attention go."""
    spooled: Path | None = None
    """The file that standard input was copied to."""
    skipped: list[str] = field(default_factory=list)
    """Outputs that `resume` found; a list, since threads count wrongly together."""
    several: bool = False
    """Whether more than one transcript goes to the screen."""
    stop: threading.Event = field(default_factory=threading.Event)
    advance: Callable[[int], None] = field(init=False)
    """Moves the progress bar by so many recordings."""

    def __call__(self, recording: Recording) -> tuple[str, list[AsrError]]:
        """Transcribe and write one recording; gives what is to be printed, and what went wrong."""
        from asr import writers
        from asr.writers.plain import to_json

        texts: list[str] = []
        errors: list[AsrError] = []
        try:
            for channel, stem in self._outputs(recording):
                transcript = self.transcriber.transcribe(
                    recording.path, word_timestamps=self.word_timestamps, channel=channel, progress=self._heard
                )
                if recording.path == self.spooled:
                    transcript = replace(transcript, source="-")
                failures = _failures(transcript)
                errors += failures
                for format, file in zip(self.formats, self._files(recording, stem), strict=True):
                    how = self.subtitles, recording.stem
                    if self.resume and _is_fresh(file, recording.path):
                        continue
                    if self.output_dir:
                        path = writers.write(transcript, self.output_dir / recording.folder, format, stem, *how)
                        if failures:  # older than its recording, if that is still there, it is done anew by --resume
                            with suppress(OSError):
                                os.utime(path, (0, recording.path.stat().st_mtime - MARKED))
                    elif format == "json" and self.several:  # JSON lines
                        texts.append(to_json(transcript, indent=None))
                    else:
                        texts.append(writers.render(transcript, format, *how))
                if self.attention:
                    self._look_inside(self.attention / recording.folder, stem, recording, transcript)
        except AsrError as error:
            if self.spooled:
                error = AsrError(str(error).replace(str(self.spooled), "standard input"))
            errors.append(error.without_frames())
        self.advance(1)
        return "".join(texts), errors

    def _look_inside(self, folder: Path, stem: str, recording: Recording, transcript: Transcript) -> None:
        from asr.viewer import write_pages

        pages = write_pages(folder, stem, self.transcriber.model, recording.path, transcript)
        for path in pages.paths:
            console.print(f"attention: {path}", style="dim")
        if not pages.paths:
            console.print(f"attention: {transcript.source}: no one speaks, so there is no page")
        if pages.left_out:
            console.print(f"attention: {transcript.source}: {pages.left_out} later stretches have no page")

    def check_outputs(self, recordings: Sequence[Recording]) -> None:
        """Refuse to replace what may be a person's, and formats of which several in a row on the screen are no file."""
        from asr.writers import BY_RECORDING, MANY_IN_ONE

        if there := next((file for each in recordings for file in self._in_the_way(each)), None):
            raise ConfigError(
                f"{there}: is there beside its recording, and may be its true transcript: name another folder for what "
                "is written, or delete it"
            )
        if self.output_dir:
            return
        self.several = len(recordings) > 1 or self.split
        if self.several and not MANY_IN_ONE.issuperset(self.formats):
            raise ConfigError(f"several transcripts as {self.formats[0]} make no valid file: name --output-dir")
        if not BY_RECORDING.isdisjoint(self.formats) and len({each.stem for each in recordings}) < len(recordings):
            raise ConfigError(f"{self.formats[0]} cannot tell recordings of one name apart: name --output-dir")

    def _in_the_way(self, recording: Recording) -> Iterator[Path]:
        """Yield what lies beside a recording and would be replaced; --resume replaces what is older than that."""
        from asr.writers import ENDINGS

        names = [(self.output_dir, f"{'.channel-*' if self.split else ''}.{ENDINGS[each]}") for each in self.formats]
        names += [(self.attention, each) for each in (".html", ".part-*.html")]
        for folder, ending in names:
            beside = folder and (folder / recording.folder).resolve() == recording.path.parent.resolve()
            if beside and recording.path.is_file():
                for file in recording.path.parent.glob(escape(recording.stem) + ending):
                    age = recording.path.stat().st_mtime - file.stat().st_mtime
                    if not self.resume or (age > 0 and abs(age - MARKED) > 0.01):
                        yield file

    def _outputs(self, recording: Recording) -> Iterator[tuple[int | None, str]]:
        """Yield each channel that is still to do, and its output's stem."""
        from asr.audio import channels

        numbers = range(1, channels(recording.path) + 1) if self.split else [None]
        for channel in numbers:
            if self.stop.is_set():
                return
            stem = f"{recording.stem}.channel-{channel}" if channel else recording.stem
            if self.resume and self._is_done(recording, stem):
                self.skipped.append(stem)
            else:
                yield channel, stem

    def _files(self, recording: Recording, stem: str) -> list[Path]:
        """Name what is written of a recording."""
        from asr.writers import ENDINGS

        return [(self.output_dir or Path()) / recording.folder / f"{stem}.{ENDINGS[name]}" for name in self.formats]

    def _is_done(self, recording: Recording, stem: str) -> bool:
        """Tell whether all outputs are there, none older than the recording."""
        files = self._files(recording, stem)
        if self.attention:
            pages = [self.attention / recording.folder / f"{stem}{part}.html" for part in ("", ".part-1")]
            files.append(pages[1] if pages[1].is_file() else pages[0])
        return all(_is_fresh(file, recording.path) for file in files)

    def _heard(self, seconds: float) -> None:
        from asr.transcriber import WINDOW_SECONDS

        if self.stop.is_set() and seconds >= WINDOW_SECONDS:  # less is the end of a recording, which is then finished
            raise KeyboardInterrupt


def _is_fresh(file: Path, recording: Path) -> bool:
    """Tell whether an output is there, and not older than its recording."""
    try:
        return file.stat().st_mtime >= recording.stat().st_mtime
    except OSError:
        return False


@contextmanager
def _standard_input(files: list[str]) -> Iterator[tuple[list[str], Path | None]]:
    """Put a file in the place of `-`."""
    from asr.inputs import STANDARD_INPUT, spooled

    if STANDARD_INPUT not in files:
        yield files, None
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError("standard input is a terminal, or closed: pipe audio into it, or name a file")
    with spooled(sys.stdin.buffer) as path:
        yield [str(path) if name == STANDARD_INPUT else name for name in files], path


def _check_output(output_dir: Path | None, resume: bool) -> None:
    if output_dir is None:
        if resume:
            raise ConfigError("--resume looks for finished outputs in --output-dir: name it")
        return
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{output_dir}: cannot be made: {error.strerror or error}: name another folder") from error
    if not os.access(output_dir, os.W_OK | os.X_OK):
        raise ConfigError(f"{output_dir}: cannot be written to: check its permissions, or name another folder")


def _failures(transcript: Transcript) -> list[AsrError]:
    failed = [span for span in transcript.spans if span.kind == "failed"]
    if not failed:
        return []
    seconds = transcript.coverage["failed"]
    what = f"{seconds:.1f} s" if seconds >= 0.05 else "its end"
    return [AsrError(f"{transcript.source}: {what} could not be decoded, the rest is there: {failed[0].reason}")]


def _print(text: str) -> None:
    if sys.stdout is None:
        raise AsrError("standard output: is closed: name --output-dir")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        raise typer.Exit(1) from None
    except OSError as error:
        raise AsrError(f"standard output: cannot be written: {error.strerror or error}") from error


def _embedded_notice() -> str:
    from asr.model.checkpoint import describe
    from asr.transcriber import EMBEDDED

    metrics = describe(EMBEDDED)["about"]["metrics"]
    rate = f"{100 * metrics['wer']:.0f} % word error rate on read English"
    return f"embedded English model, small and weak: {rate}; --model names a better one"
