"""Finding what is wrong with a data set before training does.

>>> from asr.check import check
>>> from asr.manifest import Manifest
>>> result = check([Manifest.load("train.jsonl"), Manifest.load("test.jsonl")])  # doctest: +SKIP

audio        the sound of each utterance: facts, and their thresholds
listen       all utterances, on all cores
text         transcripts: emptiness, odd characters, speaking rate, CTC
duplicates   the same audio or text twice, in one manifest or two
findings     kinds of defects and their severities
dataset      all of it
report       HTML and JSON

What takes a model is handed in as a function; see `asr.evaluation.plausibility`.
"""

from __future__ import annotations

from asr.check.dataset import Checked, Plausibility, check
from asr.check.findings import KINDS, SEVERITIES, Finding
from asr.check.text import Infeasible

__all__ = ["KINDS", "SEVERITIES", "Checked", "Finding", "Infeasible", "Plausibility", "check"]
