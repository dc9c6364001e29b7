"""Hostile and damaged inputs, full disks, interrupts: one line of complaint, and what is finished stays.

ASR_FUZZ_INPUTS=1000 pytest tests/test_attacked.py -n 0 -k mutated     # more of the same
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from examples import DATA, heed_interrupts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from safetensors import safe_open
from safetensors.torch import save_file

import asr
from asr import writers
from asr.errors import CheckpointError
from asr.inputs import find_recordings
from asr.model import checkpoint
from asr.tokenizer import BLANK
from asr.transcriber import Transcriber

FUZZ_INPUTS = int(os.environ.get("ASR_FUZZ_INPUTS", "100"))
GOOD = DATA / "1737-146161-0009.flac"
SECONDS_ALLOWED = 60  # for one damaged file; what takes longer hangs


@pytest.fixture
def transcriber(model) -> Transcriber:
    model.ctc_head.bias.data[BLANK] = -1.0
    return Transcriber(model)


@pytest.fixture
def trained(model, tmp_path) -> Path:
    model.ctc_head.bias.data[BLANK] = -1.0
    (tmp_path / "models").mkdir()
    checkpoint.save(tmp_path / "models" / "model.safetensors", model, {"metrics": {"wer": 0.9}})
    return tmp_path / "models" / "model.safetensors"


def check(transcript: asr.Transcript) -> None:
    """Every second is accounted for, and the JSON is JSON."""
    assert transcript.spans[0].start == 0
    assert transcript.spans[-1].end == transcript.duration
    assert all(one.end == other.start for one, other in pairwise(transcript.spans))
    json.loads(writers.render(transcript, "json"), parse_constant=pytest.fail)


def one_line(error: asr.AsrError, name: str = "") -> None:
    message = str(error)
    assert "\n" not in message
    assert name in message


# Audio


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A second of speech in each format that soundfile writes."""
    folder = tmp_path_factory.mktemp("kinds")
    speech = soundfile.read(GOOD, dtype="float32")[0][:16_000]
    found = [GOOD.read_bytes()]
    for name in ("a.wav", "b.flac", "c.ogg", "d.mp3", "e.aiff", "f.au", "g.caf", "h.w64"):
        soundfile.write(folder / name, np.stack((speech, speech), axis=1), 22_050)
        found.append((folder / name).read_bytes())
    soundfile.write(folder / "float.wav", speech, 16_000, subtype="FLOAT")
    return [*found, (folder / "float.wav").read_bytes()]


def mutate(content: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    """Damage a file as disks, networks and attackers do."""
    data = bytearray(content)
    header = int(draw.integers(1, 128))
    for _ in range(int(draw.integers(1, 12))):
        place = int(draw.integers(0, header if draw.random() < 0.6 else len(data)))
        kind = draw.integers(0, 6)
        if kind == 0:
            data[place % len(data)] = int(draw.integers(256))
        elif kind == 1:
            data[place : place + 4] = struct.pack("<I", int(draw.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF])))
        elif kind == 2:
            del data[place : place + int(draw.integers(1, 400))]
        elif kind == 3:
            data[place:place] = draw.bytes(int(draw.integers(1, 400)))
        elif kind == 4:
            data = data[: max(1, int(draw.integers(len(data) + 1)))]
        else:
            data[place:] = other[place:]
        data = data or bytearray(b"\0")
    return bytes(data)


def test_mutated_files_are_transcribed_or_refused(transcriber, kinds, tmp_path):
    def hangs(*_: object) -> None:
        raise TimeoutError("one file takes too long")

    before = signal.signal(signal.SIGALRM, hangs)
    read = 0
    try:
        for seed in range(FUZZ_INPUTS):
            draw = np.random.default_rng(seed)
            one, other = (kinds[int(draw.integers(len(kinds)))] for _ in range(2))
            path = tmp_path / "damaged.wav"
            path.write_bytes(mutate(one, other, draw))
            signal.alarm(SECONDS_ALLOWED)
            try:
                check(transcriber.transcribe(path))
                read += 1
            except asr.AsrError as error:
                one_line(error, "damaged.wav")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert 0 < read < FUZZ_INPUTS  # some damage is harmless, some is not
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.wav"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=stnp.arrays(
        dtype=st.one_of(
            stnp.floating_dtypes(sizes=(32, 64)), stnp.integer_dtypes(endianness="="), stnp.boolean_dtypes()
        ),
        shape=stnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=900),
    ).filter(lambda array: array.size < 50_000),
    rate=st.one_of(st.integers(-1, 10**7), st.sampled_from([8000, 16_000, 44_100]), st.floats(), st.none()),
)
def test_any_array_is_transcribed_or_refused(transcriber, samples, rate):
    try:
        check(transcriber.transcribe((samples, rate)))
    except asr.AsrError as error:
        one_line(error)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stem=st.text(max_size=60), format=st.sampled_from(["txt", "json"]))
def test_no_name_leads_out_of_the_output_folder(stem, format, tmp_path):
    transcript = asr.Transcript(stem, 0.0, (), (), "model")
    folder = tmp_path / "out"
    try:
        path = writers.write(transcript, folder, format, stem)
    except asr.AsrError:
        return
    assert path.resolve().parent == folder.resolve()
    assert {each.name for each in tmp_path.iterdir()} <= {"out"}
    path.unlink()


@settings(max_examples=50, deadline=None)
@given(names=st.lists(st.text(min_size=1, max_size=12), max_size=4))
def test_any_names_are_found_or_refused(names):
    recordings, errors = find_recordings(names)
    assert all("\n" not in str(error) or "\n" in "".join(names) for error in errors)
    assert all(".." not in recording.folder.parts and not recording.folder.is_absolute() for recording in recordings)
    places = [(recording.folder, recording.stem.casefold()) for recording in recordings]
    assert len(places) == len(set(places))


# Checkpoints


def tampered(trained: Path, name: str, *, metadata: dict | None = None, **tensors: torch.Tensor | None) -> Path:
    """Write the checkpoint again with other metadata or tensors; None drops one."""
    with safe_open(trained, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()} | tensors  # noqa: SIM118
        about = file.metadata() | (metadata or {})
    kept = {key: value for key, value in state.items() if value is not None}
    save_file(kept, trained.with_name(name), {key: value for key, value in about.items() if value is not None})
    return trained.with_name(name)


def config(trained: Path, **changes: object) -> str:
    with safe_open(trained, framework="pt") as file:
        values = json.loads(file.metadata()["config"])
    for key, value in changes.items():
        part, _, name = key.partition("__")
        values[part] = values[part] | {name: value} if name else value
    return json.dumps(values)


def refused(path: Path) -> None:
    for read in (checkpoint.load, checkpoint.describe):
        try:
            read(path)
        except CheckpointError as error:
            one_line(error, path.name)
        else:
            assert read is checkpoint.describe, "it was loaded"


def test_tensors_that_do_not_fit(trained):
    refused(tampered(trained, "shape.safetensors", **{"ctc_head.weight": torch.zeros(3, 3)}))
    refused(tampered(trained, "missing.safetensors", **{"ctc_head.weight": None}))
    refused(tampered(trained, "extra.safetensors", surprise=torch.zeros(3)))
    refused(tampered(trained, "untold.safetensors", tokenizer=None))
    refused(tampered(trained, "tokens.safetensors", tokenizer=torch.arange(99, dtype=torch.uint8)))
    refused(tampered(trained, "half.safetensors", tokenizer=torch.zeros(9, dtype=torch.bfloat16)))


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": None},
        {"format": "asr-999"},
        {"config": None},
        {"config": "{"},
        {"config": "[]"},
        {"config": "null"},
        {"config": "[" * 100_000},
        {"config": '{"encoder": {"layer": 1}}'},
        {"config": '{"encoder": {"kind": "${oc.env:PATH}"}}'},
        {"normalizer": None},
        {"normalizer": "gone"},
        {"about": None},
        {"about": "not json"},
    ],
    ids=str,
)
def test_metadata_that_is_wrong(trained, metadata):
    refused(tampered(trained, "metadata.safetensors", metadata=metadata))


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder__layers": 10**9},
        {"encoder__dim": 2**22},
        {"decoder__layers": 10**9},
        {"encoder__feed_forward": 2**40},
        {"encoder__kernel": 2**31 - 1},
        {"mels": 10**8},
        {"encoder__layers": 1001},
        {"mels": 258},
        {"encoder__layers": -1},
        {"encoder__heads": 0},
    ],
    ids=str,
)
def test_sizes_that_would_fill_the_memory(trained, changes):
    path = tampered(trained, "bomb.safetensors", metadata={"config": config(trained, **changes)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_files_that_are_no_checkpoint(trained, tmp_path):
    whole = trained.read_bytes()
    contents = {
        "empty": b"",
        "short": whole[:7],
        "cut": whole[: len(whole) // 2],
        "header": struct.pack("<Q", 2**63) + whole[8:],
        "bomb": struct.pack("<Q", 99_000_000) + b"{" + b" " * 1000,
        "text": b"weights, honestly" * 100,
        "flipped": whole[:9] + bytes(255 - byte for byte in whole[9:90]) + whole[90:],
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        refused(tmp_path / f"{name}.safetensors")
    refused(tmp_path)
    refused(tmp_path / "gone.safetensors")


def test_a_pickle_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "attacked"),))

    torch.save({"weights": Attack()}, tmp_path / "evil.safetensors")
    refused(tmp_path / "evil.safetensors")
    assert not (tmp_path / "attacked").exists()


# The machine


def program(*arguments: object, **how: object) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "asr.cli", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, stdout=-1, stderr=-1, **how)  # type: ignore[call-overload]


def test_a_full_disk_leaves_what_is_finished(trained, tmp_path):
    """No file may be larger than 4 kB: the texts fit, one long JSON does not."""
    speech = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in sorted(DATA.glob("*.flac"))])
    soundfile.write(tmp_path / "a_long.wav", speech, 16_000)
    soundfile.write(tmp_path / "b_short.wav", np.zeros(1600), 16_000)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    inputs = [tmp_path / "a_long.wav", tmp_path / "b_short.wav"]
    job = program(
        "transcribe",
        *inputs,
        "--model",
        trained,
        "--format",
        "json",
        "--output-dir",
        tmp_path / "out",
        preexec_fn=limit,
    )
    _, complaints = job.communicate(timeout=300)
    assert job.returncode == 1
    assert "Traceback" not in complaints
    assert complaints.count("cannot be written: File too large") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b_short.json"]
    json.loads((tmp_path / "out" / "b_short.json").read_text())


def test_standard_output_that_is_full_or_closed(trained):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "asr.cli", "transcribe", str(GOOD), "--model", str(trained)]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert "standard output: cannot be written: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    job = program("transcribe", GOOD, "--model", trained)
    job.stdout.close()
    assert "Traceback" not in job.stderr.read()
    assert job.wait() == 1


def test_an_interrupt_keeps_what_is_finished(trained, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(400):
        (folder / f"{number:03}.flac").write_bytes(GOOD.read_bytes())
    job = program(
        "transcribe", folder, "--model", trained, "--output-dir", out, "--jobs", 2, preexec_fn=heed_interrupts
    )
    until = time.monotonic() + 200
    while not (out.exists() and len(list(out.glob("*.txt"))) > 2):
        assert job.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    job.send_signal(signal.SIGINT)
    _, complaints = job.communicate(timeout=60)
    assert job.returncode == 130, complaints
    assert "Traceback" not in complaints
    assert "what was finished is kept" in complaints
    finished = sorted(path.name for path in out.iterdir())
    assert 2 < len(finished) < 400
    assert all(name.endswith(".txt") for name in finished)  # no half-written file
    assert len({(out / name).read_text() for name in finished}) == 1


def test_an_unreadable_folder_is_named_and_the_rest_done(trained, tmp_path, monkeypatch):
    (tmp_path / "in" / "secret").mkdir(parents=True)
    (tmp_path / "in" / "good.flac").write_bytes(GOOD.read_bytes())
    scandir = os.scandir

    def denied(path: str):
        if Path(path).name == "secret":  # the superuser, whom tests may run as, can read everything
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    recordings, errors = find_recordings([str(tmp_path / "in")])
    assert [recording.path.name for recording in recordings] == ["good.flac"]
    assert len(errors) == 1
    assert "secret: cannot be opened: permission denied" in str(errors[0])


def test_no_pattern_leads_out_of_the_output_folder(tmp_path, monkeypatch):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "b.wav").touch()
    monkeypatch.chdir(tmp_path)
    recordings, errors = find_recordings(["in/*/../../b*.wav"])
    assert (recordings, len(errors)) == ([], 1)
