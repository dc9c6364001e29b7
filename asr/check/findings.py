"""What `asr check` looks for: each kind of defect with its severity, and what is said about an utterance.

error    training or testing on it is impossible or wrong: nothing to hear, nothing to learn, or a leak
warning  it probably does harm; a person should look, or it should be left out
notice   worth knowing; it may be how the corpus was made, and nothing is left out for it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

SEVERITIES = ("error", "warning", "notice")
# What more than half of a manifest has in common (telephone speech, prompts that every speaker reads) is how the corpus
# was made: leaving those utterances out would leave no corpus. It is said, as a notice.
BY_DESIGN = 0.5


@dataclass(frozen=True)
class Kind:
    """A kind of defect."""

    severity: str
    about: str
    """What it means and what to do."""
    may_be_design: bool = False
    """Whether it is only a notice where most utterances of a manifest have it."""


KINDS = {
    "unreadable": Kind("error", "The file is missing, damaged, truncated, or no audio."),
    "empty": Kind("error", "The file or stretch holds no audio to speak of."),
    "silent": Kind("error", "Nothing is audible, or only a steady noise."),
    "too_short": Kind("error", "The audio ends before the manifest says: words are missing."),
    "too_long": Kind("warning", "The file goes on after the manifest's duration: what is said there is not read."),
    "clipped": Kind("warning", "Peaks are cut flat: recorded or amplified too loud."),
    "dc_offset": Kind("warning", "The waveform does not swing around zero: a fault of the recording device."),
    "narrowband": Kind("warning", "Nothing above 6 kHz or less, as after telephone, though stored with more.", True),
    "other_rate": Kind("notice", "The sample rate differs from most of the manifest; it is converted on reading."),
    "no_text": Kind("error", "The transcript holds no letter or digit."),
    "odd_characters": Kind(
        "warning", "Characters that the corpus otherwise does not use, markup (a notice if common), or broken encoding."
    ),
    "speaking_rate": Kind(
        "warning", "Far too much or too little text for the duration: another text, or another rate."
    ),
    "infeasible": Kind("error", "More tokens than encoder frames: CTC cannot learn from it."),
    "implausible": Kind("warning", "The model finds the transcript about as unlikely as another utterance's."),
    "contradiction": Kind("error", "The same audio has different transcripts: at least one is wrong."),
    "duplicate_audio": Kind("warning", "The same audio with the same transcript is there before; the first is kept."),
    "duplicate_text": Kind("notice", "The same sentence is there before; corpora of prompts repeat theirs by design."),
    "leak_id": Kind("error", "The id is in a later manifest, too."),
    "leak_audio": Kind(
        "error", "The same audio is in a later manifest, or a stretch of its file that shares over half with it."
    ),
    "leak_speaker": Kind(
        "warning", "The speaker is in a later manifest, too; a notice with one speaker, or if most are.", True
    ),
    "leak_text": Kind("warning", "The sentence is in a later manifest, too; a notice if short, or if most are."),
}


@dataclass(frozen=True)
class Finding:
    """Something found in one utterance."""

    kind: str
    manifest: int
    """Number of the manifest, counted from 0."""
    row: int
    """Number of the utterance in it, counted from 0."""
    detail: str
    """What was measured."""
    severity: str = ""
    """One of SEVERITIES; empty stands for the kind's own."""

    def __post_init__(self) -> None:
        """Fill in the kind's severity."""
        if not self.severity:
            object.__setattr__(self, "severity", KINDS[self.kind].severity)

    @property
    def offends(self) -> bool:
        """Whether the utterance is better left out."""
        return self.severity != "notice"


def soften(findings: Iterable[Finding], sizes: list[int]) -> list[Finding]:
    """Lower to notices what more than half of a manifest has in common, for the kinds where that is no defect.

    Args:
        findings: everything that was found.
        sizes: utterances of each manifest.
    """
    findings = list(findings)
    rows = {(finding.manifest, finding.kind, finding.row) for finding in findings}  # one may leak into several
    counts = Counter((manifest, kind) for manifest, kind, _ in rows)
    return [
        replace(finding, severity="notice")
        if KINDS[finding.kind].may_be_design
        and counts[finding.manifest, finding.kind] > BY_DESIGN * sizes[finding.manifest]
        else finding
        for finding in findings
    ]
