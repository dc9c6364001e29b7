"""Make the files here: what the embedded model hears in tests/data, and how NIST's sclite scores it.

python tests/evaluation/sclite/make.py       (needs sclite: Debian's package sctk, or SCLITE=/path/to/sclite)

The words of the CTM are spread evenly over their utterance; all utterances are laid one after the other in two
recordings, with a second of silence between them in which one more word is invented.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from asr.evaluation.evaluate import evaluate
from asr.manifest import Manifest
from asr.normalize import get_normalizer
from asr.transcriber import Transcriber

HERE = Path(__file__).parent
SCLITE = os.environ.get("SCLITE", "/usr/lib/sctk/bin/sclite")


def main() -> None:
    """Write ref.trn, hyp.trn, ref.stm, hyp.ctm and expected.json."""
    manifest = Manifest.load(HERE.parents[1] / "data" / "manifest.jsonl")
    basic = get_normalizer("basic")
    rows = evaluate(Transcriber.load(mode="ctc"), manifest)["results"]
    texts = [(row, basic(row["reference"]), basic(row["hypothesis"])) for row in rows]
    _write("ref.trn", [f"{reference} ({row['id']})" for row, reference, _ in texts])
    _write("hyp.trn", [f"{hypothesis} ({row['id']})" for row, _, hypothesis in texts])
    stm, ctm, clock = [], [], {"one": 0.0, "two": 0.0}
    for number, (row, reference, hypothesis) in enumerate(texts):
        name = "one" if number < 6 else "two"
        begin, end = clock[name], round(clock[name] + row["duration"], 3)
        stm.append(f"{name} 1 {row['speaker']} {begin:.3f} {end:.3f} <o,f0,female> {reference}")
        words = hypothesis.split()
        for place, word in enumerate(words):
            ctm.append(f"{name} 1 {begin + place * row['duration'] / len(words):.3f} 0.050 {word} 0.9")
        ctm.append(f"{name} 1 {end + 0.1:.3f} 0.050 invented 0.1")
        clock[name] = end + 1
    _write("ref.stm", [";; made by make.py", *stm])
    _write("hyp.ctm", [";; made by make.py", *ctm])
    expected = {"trn": _sclite("ref.trn", "trn", "hyp.trn", "trn", "-i", "spu_id")}
    expected["ctm"] = _sclite("ref.stm", "stm", "hyp.ctm", "ctm")
    (HERE / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


def _write(name: str, lines: list[str]) -> None:
    (HERE / name).write_text("".join(f"{line}\n" for line in lines))


def _sclite(reference: str, kind: str, hypothesis: str, other: str, *options: str) -> dict[str, list[int]]:
    """Give words, hits, substitutions, deletions, insertions and errors of each speaker and of all."""
    command = [SCLITE, "-r", reference, kind, "-h", hypothesis, other, *options, "-o", "rsum", "stdout"]
    output = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout
    table = {}
    for line in output.splitlines():
        if found := re.match(r"\s*\|\s*(\S+)\s*\|\s*\d+\s+(\d+)\s*\|\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", line):
            table[found[1].lower()] = [int(number) for number in found.groups()[1:]]
    return table


if __name__ == "__main__":
    main()
