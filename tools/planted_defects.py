"""How many planted defects `asr check` finds in real speech, and how often it cries wolf.

python tools/planted_defects.py data/mini_librispeech/train.jsonl data/common_voice/train.jsonl --model embedded
python tools/planted_defects.py data/*/train.jsonl --sample 100 --per-kind 3     # quicker

Of each manifest a sample is copied, once as it is and three times with defects: in the sound, in the texts, and copies
and leaks. `found` counts planted utterances with an error or warning of any kind (what --write-clean drops), `named`
those with a finding of the kind planted. Whatever is found in the untouched sample is listed, to be looked at.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr.check import Checked, check
from asr.evaluation.plausibility import TranscriptJudge, infeasible_rows
from asr.manifest import Manifest, Utterance, write_manifest
from asr.model import checkpoint
from asr.samples import SAMPLE_RATE
from asr.transcriber import EMBEDDED

Waveform = NDArray[np.float32]


@dataclass
class Planter:
    """Plants defects in copies of a sample of real utterances.

    Args:
        sample: the utterances.
        folder: where the audio of planted utterances goes.
        rng: draws utterances and strengths.
    """

    sample: list[Utterance]
    folder: Path
    rng: np.random.Generator
    count: int = field(default=0, init=False)

    def sound(self, utterance: Utterance, kind: str) -> Utterance:
        """Copy an utterance with a fault in its sound."""
        self.count += 1
        path = self.folder / f"{kind}-{self.count}.wav"
        planted = replace(utterance, audio_filepath=str(path), offset=0.0)
        if kind == "unreadable":
            return self._unreadable(utterance, planted, path)
        if kind == "empty":
            soundfile.write(path, np.zeros(0), SAMPLE_RATE) if self.count % 2 else path.touch()
            return planted
        waveform, rate = utterance.waveform(), SAMPLE_RATE
        if kind == "wrong_rate":  # what was sampled at 8 kHz is said to be 16 kHz, or the other way round
            planted = replace(planted, duration=utterance.duration * (2 if self.count % 2 else 0.5))
            waveform = soxr.resample(waveform, 8000, SAMPLE_RATE) if self.count % 2 else waveform[::2]
        elif kind == "narrowband":
            waveform, rate = self._narrow(waveform)
        else:
            waveform = getattr(self, f"_{kind}")(waveform)
        soundfile.write(path, np.clip(waveform, -1, 1 - 2**-15), rate)  # 16 bits
        return planted

    def _unreadable(self, utterance: Utterance, planted: Utterance, path: Path) -> Utterance:
        way = self.count % 3
        if way == 0:
            return planted  # no such file
        whole = path.with_suffix(".flac")
        soundfile.write(whole, utterance.waveform(), SAMPLE_RATE)
        content = whole.read_bytes()
        whole.unlink()
        path.write_bytes(content[: len(content) // 2] if way == 1 else self.rng.bytes(20_000))
        return planted

    def _silent(self, waveform: Waveform) -> Waveform:
        level = (0.0, 1e-4, 3e-3)[self.count % 3]  # digital silence, -80 dBFS, and the hiss of an open microphone
        return (level * self.rng.standard_normal(len(waveform))).astype(np.float32)

    def _clipped(self, waveform: Waveform) -> Waveform:
        limit = np.quantile(np.abs(waveform), 1 - self.rng.uniform(0.001, 0.05))
        return np.clip(waveform, -limit, limit) / limit * np.float32(self.rng.choice([0.5, 1.0]))

    def _dc_offset(self, waveform: Waveform) -> Waveform:
        return waveform + np.float32(self.rng.choice([-1, 1]) * self.rng.uniform(0.015, 0.1))

    def _too_short(self, waveform: Waveform) -> Waveform:
        return waveform[: int(len(waveform) * self.rng.uniform(0.3, 0.8))]

    def _too_long(self, waveform: Waveform) -> Waveform:
        other = self.sample[int(self.rng.integers(len(self.sample)))]
        return np.concatenate((waveform, other.waveform()))

    def _narrow(self, waveform: Waveform) -> tuple[Waveform, int]:
        way = self.count % 4
        low = 11_025 if way == 1 else 8000
        narrow = np.asarray(soxr.resample(waveform, SAMPLE_RATE, low), dtype=np.float32)
        if way == 2:  # telephone: eight bits, mu-law (ITU-T G.711)
            coded = np.round(127 * np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)) / 127
            narrow = (np.sign(coded) * np.expm1(np.abs(coded) * np.log(256)) / 255).astype(np.float32)
        return (narrow, low) if way == 3 else (soxr.resample(narrow, low, SAMPLE_RATE), SAMPLE_RATE)

    def text(self, utterance: Utterance, kind: str) -> Utterance:
        """Copy an utterance with a fault in its text."""
        self.count += 1
        return replace(utterance, text=getattr(self, f"_{kind}")(utterance))

    def _no_text(self, utterance: Utterance) -> str:
        return ("", " ", "...")[self.count % 3]

    def _odd_characters(self, utterance: Utterance) -> str:
        words = utterance.text.split()
        odd = ("<unk>", "cafÃ©", "1987", "R&D", "\u0441\u043b\u043e\u0432\u043e", "a\ufffdb", "&quot;")[self.count % 7]
        words.insert(int(self.rng.integers(len(words) + 1)), odd)
        return " ".join(words)

    def _speaking_rate(self, utterance: Utterance) -> str:
        words = utterance.text.split()
        if self.count % 2 and len(words) >= 10:
            return " ".join(words[: len(words) // 10])
        text = utterance.text
        while len(text) < 5 * max(20, len(utterance.text)):
            text += " " + self._other(utterance).text
        return text

    def _infeasible(self, utterance: Utterance) -> str:
        text = utterance.text
        while len(text) < 30 * utterance.duration:
            text += " " + self._other(utterance).text
        return text

    def _implausible(self, utterance: Utterance) -> str:
        others = [each.text for each in self.sample if each.text != utterance.text]
        return min(others, key=lambda text: abs(len(text) - len(utterance.text)))

    def _other(self, utterance: Utterance) -> Utterance:
        others = [each for each in self.sample if each.text != utterance.text]
        return others[int(self.rng.integers(len(others)))]

    def copy(self, utterance: Utterance, kind: str) -> Utterance:
        """Make a further utterance that shares something with a given one."""
        self.count += 1
        other, path = self._other(utterance), self.folder / f"{kind}-{self.count}.wav"
        new = replace(other, id=f"{kind}-{self.count}", speaker=other.speaker and f"{kind}-{self.count}")
        if kind in ("duplicate_audio", "contradiction", "leak_audio"):
            waveform = utterance.waveform()
            soundfile.write(path, waveform, SAMPLE_RATE)  # another file, another format
            text = utterance.text if kind == "duplicate_audio" else other.text
            return replace(new, audio_filepath=str(path), offset=0.0, duration=utterance.duration, text=text)
        waveform = other.waveform()
        soundfile.write(path, 0.9 * waveform, SAMPLE_RATE)  # not the same audio
        new = replace(new, audio_filepath=str(path), offset=0.0)
        shared = {"duplicate_text": "text", "leak_text": "text", "leak_speaker": "speaker", "leak_id": "id"}[kind]
        return replace(new, **{shared: getattr(utterance, shared)})


SOUND = ["unreadable", "empty", "silent", "clipped", "dc_offset", "too_short", "too_long", "narrowband", "wrong_rate"]
TEXT = ["no_text", "odd_characters", "speaking_rate", "infeasible", "implausible"]
COPIES = ["duplicate_audio", "contradiction", "duplicate_text"]
LEAKS = ["leak_id", "leak_audio", "leak_speaker", "leak_text"]
NAMES = {"wrong_rate": {"speaking_rate", "implausible"}}


@dataclass
class Tally:
    """What became of the planted defects."""

    planted: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    """Planted, and without error or warning."""

    def add(self, checked: Checked, kinds: dict[int, str]) -> None:
        """Count the findings in the first manifest of a check, given what was planted in which row."""
        found: defaultdict[int, set[str]] = defaultdict(set)
        for finding in checked.findings:
            if finding.manifest == 0:
                found[finding.row] |= {finding.kind, *(["offends"] if finding.offends else [])}
        for row, kind in kinds.items():
            self.planted[kind] += 1
            self.found[kind] += "offends" in found[row]
            self.named[kind] += bool(found[row] & NAMES.get(kind, {kind}))
            if "offends" not in found[row] and kind != "duplicate_text":
                self.missed.append(f"    {kind:15} {checked.manifests[0][row]}")


def plant(
    sample: list[Utterance], kinds: list[str], count: int, make: Callable[[Utterance, str], Utterance], seed: int
) -> tuple[list[Utterance], dict[int, str]]:
    """Put `count` utterances of each kind in the place of others of the sample.

    Returns:
        The sample with defects, and the kind of each planted row.
    """
    rows = np.random.default_rng(seed).permutation(len(sample))[: count * len(kinds)]
    planted = {int(row): kinds[place % len(kinds)] for place, row in enumerate(rows)}
    return [make(each, planted[row]) if row in planted else each for row, each in enumerate(sample)], planted


def measure(
    sample: list[Utterance],
    folder: Path,
    per_kind: int,
    seed: int,
    tally: Tally,
    run: Callable[..., Checked],
) -> Checked:
    """Plant everything in a sample and count what is found.

    Args:
        sample: real utterances, at least a few times as many as are planted.
        folder: for the audio and manifests.
        per_kind: defects of each kind.
        seed: of every draw.
        tally: is added to.
        run: the check, given manifests and whether a model shall listen; it cannot tell copies from originals.

    Returns:
        The check of the untouched sample.
    """
    planter = Planter(sample, folder, np.random.default_rng(seed))

    def checked(*manifests: list[Utterance], listen: bool = True) -> Checked:
        paths = [folder / f"{number}.jsonl" for number in range(len(manifests))]
        for path, utterances in zip(paths, manifests, strict=True):
            write_manifest(path, utterances)
        return run([Manifest.load(path) for path in paths], listen)

    for kinds, make in ((SOUND, planter.sound), (TEXT, planter.text)):
        spoilt, planted = plant(sample, kinds, per_kind, make, seed)
        tally.add(checked(spoilt), planted)
    half = len(sample) // 2
    train, test = sample[:half], [replace(each, speaker=f"test-{each.speaker}") for each in sample[half:]]
    kinds = [kind for kind in COPIES + LEAKS for _ in range(per_kind)]
    shared = [(train if kind in COPIES else test)[place % half] for place, kind in enumerate(kinds)]
    copies = [planter.copy(each, kind) for each, kind in zip(shared, kinds, strict=True)]
    tally.add(checked([*train, *copies], test, listen=False), {half + place: kind for place, kind in enumerate(kinds)})
    return checked(sample)


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--model", help="checkpoint, or 'embedded'; without, the model's kinds are not planted")
    parser.add_argument("--sample", type=int, default=300, help="utterances of each manifest")
    parser.add_argument("--per-kind", type=int, default=6, help="defects of each kind in each manifest")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    path = EMBEDDED if arguments.model == "embedded" else arguments.model
    model = checkpoint.load(path)[0] if path else None
    if model is None:
        TEXT[:] = [kind for kind in TEXT if kind not in ("implausible", "infeasible")]

    def run(manifests: list[Manifest], listen: bool) -> Checked:
        if model is None or not listen:
            return check(manifests, arguments.jobs)
        feasible = infeasible_rows(model.tokenizer, model.config.encoder.subsampling)
        return check(manifests, arguments.jobs, None, feasible, TranscriptJudge(model))

    tally, alarms, clean = Tally(), list[str](), Counter[str]()
    for manifest_path in arguments.manifests:
        manifest = Manifest.load(manifest_path)
        chosen = np.random.default_rng(arguments.seed).permutation(len(manifest))[: arguments.sample]
        sample = [manifest[int(row)] for row in chosen]
        with tempfile.TemporaryDirectory() as folder:
            checked = measure(sample, Path(folder), arguments.per_kind, arguments.seed, tally, run)
        bad = checked.offenders(0)
        clean += Counter({"utterances": len(bad), "alarms": int(bad.sum())})
        alarms.append(f"{manifest_path}: {bad.sum()} of {len(bad)} ({100 * bad.mean():.2f} %)")
        for note in checked.notes:
            alarms.append(f"    {note}")
        for finding in filter(lambda each: each.offends, checked.findings):
            utterance = checked.manifests[0][finding.row]
            alarms.append(f"    {finding.kind:15} {utterance.id}: {finding.detail} | {utterance.text[:60]}")
        print(f"{manifest_path}: done", flush=True)
    print(f"\n{'planted':16} {'count':>5} {'found':>7} {'named':>7}")
    for kind, count in tally.planted.items():
        print(f"{kind:16} {count:5} {tally.found[kind] / count:7.1%} {tally.named[kind] / count:7.1%}")
    total = sum(tally.planted.values())
    harmful = {kind: count for kind, count in tally.planted.items() if kind != "duplicate_text"}
    found = sum(tally.found[kind] for kind in harmful) / sum(harmful.values())
    print(f"{'all':16} {total:5} {found:7.1%} {sum(tally.named.values()) / total:7.1%}   (found: without the notices)")
    print("\n".join(["missed:", *tally.missed]))
    print("\nnothing planted: " + f"{clean['alarms']} of {clean['utterances']} with an error or warning")
    print("\n".join(alarms))


if __name__ == "__main__":
    main()
