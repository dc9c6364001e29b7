"""One recogniser, timed: a program of its own, so that each runs in its own environment and starts from nothing.

python tools/benchmarks/hear.py NAME --clip FILE --long FILE --files FILE...     # prints one JSON object

NAME is a program of `MAKERS`, or `asr:` and a file of conf/model, for that architecture with random weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path

Hear = Callable[[str], str]
SLOW = 60.0  # seconds: what would take longer is left out


def make_asr(threads: int, mode: str | None = None, architecture: str = "") -> tuple[Hear, int]:
    """Load this package's embedded model, to search as it recommends or in a mode, or make one of random weights."""
    import torch

    from asr.decoding import DecodingOptions
    from asr.transcriber import Transcriber

    torch.set_num_threads(threads)
    transcriber = Transcriber.load(None, "cpu", mode)
    if architecture:
        import yaml

        from asr.config import build, resource
        from asr.model.config import ModelConfig
        from asr.model.recognizer import Recognizer

        sizes = yaml.safe_load((resource("conf") / "model" / f"{architecture}.yaml").read_text())
        model = Recognizer(build(ModelConfig, sizes, architecture), transcriber.model.tokenizer).eval()
        transcriber = Transcriber(model, DecodingOptions())
    parameters = sum(weight.numel() for weight in transcriber.model.parameters())
    return (lambda path: transcriber.transcribe(path).text), parameters


def make_pocketsphinx(threads: int) -> tuple[Hear, int]:
    """Load the model that the package brings; it has one thread."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=16_000, loglevel="FATAL")

    def hear(path: str) -> str:
        decoder.start_utt()
        decoder.process_raw(_samples(path), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return hear, 0


def make_vosk(threads: int) -> tuple[Hear, int]:
    """Load the small English model from where the package keeps it."""
    import vosk

    folder = _weights(".cache/vosk/vosk-model-small-en-us-0.15")
    vosk.SetLogLevel(-1)
    model = vosk.Model(str(folder))

    def hear(path: str) -> str:
        recognizer = vosk.KaldiRecognizer(model, 16_000)
        recognizer.AcceptWaveform(_samples(path))
        return json.loads(recognizer.FinalResult())["text"]

    return hear, 0


def make_openai_whisper(threads: int) -> tuple[Hear, int]:
    """Load tiny.en from where the package keeps it."""
    import torch
    import whisper

    weights = _weights(".cache/whisper/tiny.en.pt")
    torch.set_num_threads(threads)
    model = whisper.load_model(str(weights), device="cpu")
    return (lambda path: model.transcribe(path)["text"]), sum(weight.numel() for weight in model.parameters())


def make_faster_whisper(threads: int) -> tuple[Hear, int]:
    """Load tiny.en, int8, from where the package keeps it."""
    from faster_whisper import WhisperModel

    _weights(".cache/huggingface/hub/models--Systran--faster-whisper-tiny.en")
    model = WhisperModel("tiny.en", "cpu", compute_type="int8", cpu_threads=threads, local_files_only=True)
    return (lambda path: "".join(segment.text for segment in model.transcribe(path)[0])), 0


def make_moonshine(threads: int) -> tuple[Hear, int]:
    """Load tiny from where the package keeps it."""
    import moonshine_onnx

    _weights(".cache/huggingface/hub/models--UsefulSensors--moonshine")
    model = moonshine_onnx.MoonshineOnnxModel(model_name="moonshine/tiny")
    return (lambda path: moonshine_onnx.transcribe(path, model)[0]), 27_100_000


MAKERS: dict[str, Callable[[int], tuple[Hear, int]]] = {
    "asr": make_asr,
    "asr ctc": lambda threads: make_asr(threads, "ctc"),
    "pocketsphinx": make_pocketsphinx,
    "vosk": make_vosk,
    "openai-whisper": make_openai_whisper,
    "faster-whisper": make_faster_whisper,
    "moonshine": make_moonshine,
}


def _weights(name: str) -> Path:
    path = Path.home() / name
    if not path.exists():
        raise SystemExit("not measured: no weights here")
    return path


def _samples(path: str) -> bytes:
    """Read 16-bit mono samples, the one thing that every toolkit takes."""
    with wave.open(path) as file:
        return file.readframes(file.getnframes())


def _seconds(path: str) -> float:
    with wave.open(path) as file:
        return file.getnframes() / file.getframerate()


def peak_megabytes() -> float:
    """Most memory of this program. Linux hands `ru_maxrss` down from the parent; `VmHWM` begins anew."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _rate(work: Callable[[], object], seconds: float, repeats: int) -> float:
    """Seconds of audio heard each second, the median of some runs."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return seconds / statistics.median(times)


def main() -> None:
    """Start, hear, and print what it took."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--clip", required=True, help="16-bit mono wav at 16 kHz, as all others")
    parser.add_argument("--long", required=True)
    parser.add_argument("--files", nargs="+", required=True)
    arguments = parser.parse_args()
    name, _, architecture = arguments.name.partition(":")
    try:
        if name.startswith("asr"):
            import asr.transcriber  # noqa: F401 (timed apart from the load)
        imported = time.perf_counter() - began
        make = MAKERS[name]
        hear, parameters = make_asr(arguments.threads, "ctc", architecture) if architecture else make(arguments.threads)
    except ImportError as error:
        raise SystemExit(f"not measured: {error.name or error} is not installed there") from error
    loaded = time.perf_counter() - began - imported
    hear(arguments.files[0])
    first = time.perf_counter() - began - imported - loaded
    found = {"import": imported, "load": loaded, "first": first, "parameters": parameters}
    hear(arguments.clip)
    found["clip"] = _rate(lambda: hear(arguments.clip), _seconds(arguments.clip), arguments.repeats)
    for kind, paths in (("files", arguments.files), ("long", [arguments.long])):
        seconds = sum(map(_seconds, paths))
        if seconds / found["clip"] < SLOW:
            found[kind] = _rate(lambda paths=paths: [hear(path) for path in paths], seconds, 1)
    found["after"] = time.perf_counter() - began - imported - loaded - first  # no part of the start
    found["peak"] = peak_megabytes()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
