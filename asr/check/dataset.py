"""The whole check: manifests in, findings out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.check.audio import judge
from asr.check.duplicates import Keys, find_duplicates, find_leaks
from asr.check.findings import KINDS, SEVERITIES, Finding, soften
from asr.check.listen import listen
from asr.check.text import Infeasible, judge_feasibility, judge_texts
from asr.manifest import Manifest
from asr.tokenizer import Tokenizer


class Plausibility(NamedTuple):
    """What a model thinks of a manifest's transcripts."""

    scores: NDArray[np.float64]
    """Of each utterance, the higher the better; NaN where there is none."""
    implausible: dict[int, str]
    """Rows whose transcript does not fit, each with the reason."""
    note: str
    """Why the model cannot judge this manifest; empty if it can."""


JudgePlausibility = Callable[[Manifest, NDArray[np.bool_]], Plausibility]
"""Judges the rows of a manifest that a mask says True of."""


@dataclass(frozen=True)
class Checked:
    """Manifests, and everything that was found in them."""

    manifests: list[Manifest]
    facts: list[NDArray[np.void]]
    """Of each manifest, rows of `asr.check.audio.FACTS`."""
    scores: list[NDArray[np.float64]]
    """Of each manifest, the model's scores; empty without a model."""
    findings: list[Finding]
    """The most severe first."""
    notes: list[str]
    """What could not be checked, and why."""

    def counts(self) -> dict[tuple[str, str], int]:
        """Count utterances by severity and kind, in the order of SEVERITIES and KINDS."""
        rows = {(finding.severity, finding.kind, finding.manifest, finding.row) for finding in self.findings}
        counted = Counter((severity, kind) for severity, kind, _, _ in rows)
        return {(s, k): counted[s, k] for s in SEVERITIES for k in KINDS if counted[s, k]}

    def offenders(self, number: int) -> NDArray[np.bool_]:
        """Mark the utterances of a manifest with an error or a warning."""
        marks = np.zeros(len(self.manifests[number]), dtype=bool)
        marks[[finding.row for finding in self.findings if finding.manifest == number and finding.offends]] = True
        return marks


def check(
    manifests: list[Manifest],
    jobs: int = 1,
    tokenizer: Tokenizer | None = None,
    infeasible: Infeasible | None = None,
    plausibility: JudgePlausibility | None = None,
    progress: Callable[[int], None] = lambda utterances: None,
) -> Checked:
    """Find what is wrong with manifests, their audio and their transcripts.

    Args:
        manifests: training data first; what two share is held against the earlier.
        jobs: processes that listen.
        tokenizer: what the texts will be written in; finds characters that it cannot write.
        infeasible: finds what CTC cannot align; None leaves that out.
        plausibility: what a model thinks of the transcripts; None leaves that out.
        progress: called with the number of utterances listened to since.

    Raises:
        DataError: a listening process died.
    """
    facts, scores, findings, keys, notes = [], [], [], [], _missing(infeasible, plausibility)
    columns = [
        [manifest.table[name].to_pylist() for name in ("audio_filepath", "offset", "duration")]
        for manifest in manifests
    ]
    uses = Counter(path for path, *_ in {row for each in columns for row in zip(*each, strict=True)})
    for number, manifest in enumerate(manifests):
        measured, reasons = listen(manifest, jobs, progress)
        found = list(judge(manifest, measured, reasons, number, uses))
        seconds = np.where(measured["seconds"] > 0, measured["seconds"], manifest.durations)
        found += judge_texts(manifest.texts, seconds, number, tokenizer)
        if infeasible:
            found += judge_feasibility(manifest.texts, seconds, number, infeasible)
        unfit = {"unreadable", "empty", "silent", "no_text", "infeasible"}
        usable = np.ones(len(manifest), dtype=bool)
        usable[[finding.row for finding in found if finding.kind in unfit]] = False
        usable &= measured["seconds"] > 0
        if plausibility:
            judged = plausibility(manifest, usable)
            scores.append(judged.scores)
            found += [Finding("implausible", number, row, detail) for row, detail in judged.implausible.items()]
            notes += [f"{Path(manifest.origin).name}: {judged.note}"] if judged.note else []
        silent = [finding.row for finding in found if finding.kind in ("silent", "empty")]
        hashes = measured["hash"].copy()
        hashes[silent] = 0  # all silences are the same
        keys.append(Keys.of(manifest, hashes))
        findings += [*found, *find_duplicates(keys[-1], number)]
        facts.append(measured)
    findings += find_leaks(keys, [Path(manifest.origin).name for manifest in manifests])
    findings = soften(findings, [len(manifest) for manifest in manifests])
    order = {kind: place for place, kind in enumerate(KINDS)}
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), order[f.kind], f.manifest, f.row))
    return Checked(manifests, facts, scores, findings, notes)


def _missing(infeasible: Infeasible | None, plausibility: JudgePlausibility | None) -> list[str]:
    notes = []
    if not infeasible:
        notes.append("infeasible: not checked without --tokenizer or --model")
    if not plausibility:
        notes.append("implausible: not checked without --model")
    return notes
