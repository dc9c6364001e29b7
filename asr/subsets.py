"""What manifests hold, parts of them and their union: statistics, splits that share no speaker, filters, merging."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import ConfigError, DataError
from asr.manifest import Manifest, Utterance

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS = 12  # of the histogram of durations


def describe(manifest: Manifest) -> dict[str, Any]:
    """Count what is in a manifest.

    Returns:
        Numbers ready for JSON: `utterances`, `hours`, `speakers` and `without_speaker`, `without_text`, `languages`
        (hours of each), `duration` (seconds: quantiles and a histogram) and `characters_per_second` (quantiles over
        the utterances that have text; None if none has).
    """
    seconds, rates = manifest.durations, characters_per_second(manifest)
    speakers, languages = (manifest.table[name].to_pylist() for name in ("speaker", "language"))
    counts, edges = np.histogram(seconds, bins=BINS, range=(0, float(seconds.max())))
    names, where = np.unique(languages, return_inverse=True)
    hours = np.bincount(where, weights=seconds) / 3600
    return {
        "utterances": len(manifest),
        "hours": float(seconds.sum() / 3600),
        "speakers": len(set(speakers) - {""}),
        "without_speaker": speakers.count(""),
        "without_text": int((rates == 0).sum()),
        "languages": dict(zip(names.tolist(), hours.tolist(), strict=True)),
        "duration": {
            "quantiles": _quantiles(seconds),
            "histogram": {"edges": edges.tolist(), "utterances": counts.tolist()},
        },
        "characters_per_second": _quantiles(rates[rates > 0]) if rates.any() else None,
    }


def characters_per_second(manifest: Manifest) -> NDArray[np.float64]:
    """Measure how fast each utterance is read; spaces within the text count, spaces around it do not."""
    return np.array([len(text.strip()) for text in manifest.texts], dtype=np.float64) / manifest.durations


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(map(str, QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True))


def assign(names: Sequence[str], shares: Mapping[str, float]) -> NDArray[np.int64]:
    """Deal out rows so that rows of the same name stay together.

    The choice is a hash of the name, so it stays the same when others are added, on every machine; only where a split
    would get no name at all does it get the nearest one.

    Args:
        names: of each row, for example its speaker.
        shares: how much of the names each split gets, in this order; the sum does not matter.

    Returns:
        For each row the number of its split, counted from 0.

    Raises:
        DataError: there are fewer names than splits.
    """
    if len(distinct := sorted(set(names), key=rank)) < len(shares):
        raise DataError(f"{len(distinct)} cannot be divided into {len(shares)} splits")
    bounds = np.cumsum(list(shares.values())) / sum(shares.values())
    cuts = np.searchsorted([rank(name) for name in distinct], bounds[:-1]).tolist()
    for index in range(len(cuts)):  # none empty: at least one name below each cut, and one for each split above
        lowest = cuts[index - 1] + 1 if index else 1
        cuts[index] = min(max(cuts[index], lowest), len(distinct) - len(cuts) + index)
    places = {name: place for place, name in enumerate(distinct)}
    return np.searchsorted(cuts, [places[name] for name in names], side="right")


def rank(name: str) -> float:
    """Hash a name to a number of 0 to 1."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64


def split(manifest: Manifest, shares: Mapping[str, float]) -> tuple[dict[str, Manifest], str]:
    """Divide a manifest so that no speaker is in two parts.

    Args:
        manifest: utterances; one without a speaker is a speaker of its own.
        shares: name and share of each part, for example {"train": 0.9, "dev": 0.1}.

    Returns:
        The parts, and a warning where they cannot be kept apart by speaker; else an empty string.

    Raises:
        DataError: there are too few utterances.
    """
    speakers, ids = (manifest.table[name].to_pylist() for name in ("speaker", "id"))
    unknown = speakers.count("")
    warning = f"{unknown} of {len(ids)} utterances name no speaker: they were divided by utterance" if unknown else ""
    if not unknown and len(set(speakers)) < len(shares):
        warning = f"only {len(set(speakers))} speakers: divided by utterance, so parts share speakers"
        speakers = ids
    where = assign([speaker or name for speaker, name in zip(speakers, ids, strict=True)], shares)
    return {name: manifest.select(where == index) for index, name in enumerate(shares)}, warning


@dataclass(frozen=True)
class Rules:
    """What an utterance must be like to be kept; None and an empty list let everything through."""

    min_duration: float | None = None
    """Seconds."""
    max_duration: float | None = None
    """Seconds."""
    min_rate: float | None = None
    """Characters per second."""
    max_rate: float | None = None
    """Characters per second."""
    text: str | None = None
    """A regular expression that is found somewhere in the text."""
    speakers: list[str] = field(default_factory=list)
    """Only these."""

    def __post_init__(self) -> None:
        """Check the expression."""
        try:
            re.compile(self.text or "")
        except re.error as error:
            raise ConfigError(f"{self.text!r} is not a regular expression: {error}") from error


def sift(manifest: Manifest, rules: Rules) -> tuple[Manifest, dict[str, int]]:
    """Keep the utterances that pass every rule.

    Returns:
        What is left, maybe nothing, and how many utterances each rule that was given dropped of those that the rules
        before it had left.
    """
    seconds, rates = manifest.durations, characters_per_second(manifest)
    passes: dict[str, NDArray[np.bool_]] = {}
    if rules.min_duration is not None:
        passes[f"shorter than {rules.min_duration:g} s"] = seconds >= rules.min_duration
    if rules.max_duration is not None:
        passes[f"longer than {rules.max_duration:g} s"] = seconds <= rules.max_duration
    if rules.min_rate is not None:
        passes[f"under {rules.min_rate:g} characters per second"] = rates >= rules.min_rate
    if rules.max_rate is not None:
        passes[f"over {rules.max_rate:g} characters per second"] = rates <= rules.max_rate
    if rules.text is not None:
        found = re.compile(rules.text).search
        passes[f"text without {rules.text!r}"] = np.array([found(text) is not None for text in manifest.texts])
    if rules.speakers:
        passes["another speaker"] = np.array([name in rules.speakers for name in manifest.table["speaker"].to_pylist()])
    keep, dropped = np.ones(len(manifest), dtype=bool), {}
    for name, passed in passes.items():
        dropped[name] = int((keep & ~passed).sum())
        keep &= passed
    return manifest.select(keep), dropped


def merge(manifests: Mapping[str, Manifest]) -> Iterator[Utterance]:
    """Put manifests one behind the other.

    Args:
        manifests: each with a short name of its own.

    Yields:
        All utterances; an id that is in two manifests gets its manifest's name and a hyphen in front.
    """
    seen = Counter(name for manifest in manifests.values() for name in set(manifest.table["id"].to_pylist()))
    for name, manifest in manifests.items():
        for utterance in manifest:
            yield replace(utterance, id=f"{name}-{utterance.id}") if seen[utterance.id] > 1 else utterance
