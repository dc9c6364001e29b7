"""The same audio or text more than once: within a manifest, and in two that should share nothing."""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from asr.check.audio import DURATION_SECONDS
from asr.check.findings import BY_DESIGN, Finding
from asr.manifest import Manifest
from asr.normalize import get_normalizer

SHORT = 4  # words: shorter sentences recur in all speech ("thank you very much" is the longest common one)
SHORT_WIDTH = 24  # characters, wide ones (Han, Kana, Hangul) as two: scripts without blanks part no words
OVERLAP = 0.5  # of the shorter of two stretches of one file; neighbours share a little at their edges


@dataclass(frozen=True)
class Keys:
    """What makes utterances of a manifest the same; an empty or 0 key is like no other."""

    ids: Sequence[str]
    speakers: Sequence[str]
    texts: Sequence[str]
    """Normalised."""
    audio: Sequence[int]
    """Hash of the decoded samples."""
    stretches: Sequence[tuple[str, float, float]] = ()
    """Audio file, begin and end in seconds."""

    @classmethod
    def of(cls, manifest: Manifest, hashes: NDArray[np.uint64]) -> Keys:
        """Take the keys of a manifest, and the hash of each utterance's samples."""
        ids, speakers, paths = (manifest.table[name].to_pylist() for name in ("id", "speaker", "audio_filepath"))
        texts = list(map(get_normalizer("basic"), manifest.texts))
        real = {path: os.path.realpath(path) for path in set(paths)}
        begins = manifest.table["offset"].to_numpy()
        ends = (begins + manifest.durations).tolist()
        stretches = list(zip([real[path] for path in paths], begins.tolist(), ends, strict=True))
        return cls(ids, speakers, texts, hashes.tolist(), stretches)


def find_duplicates(keys: Keys, number: int) -> Iterator[Finding]:
    """Find what is in a manifest twice.

    Args:
        keys: of the manifest.
        number: of the manifest.
    """
    audio = _same_audio(keys)
    for rows in _groups(audio):
        first = keys.texts[rows[0]]
        different = next((row for row in rows if keys.texts[row] != first), None)
        for row in rows:
            other = different if keys.texts[row] == first else rows[0]
            if other is not None:  # nobody can say which is right
                yield Finding("contradiction", number, row, f"same audio as {keys.ids[other]}, which has another text")
            elif row != rows[0]:
                yield Finding("duplicate_audio", number, row, f"same audio and text as {keys.ids[rows[0]]}")
    for rows in _groups(keys.texts):
        for row in rows[1:]:
            if audio[row] != audio[rows[0]] or not audio[row]:
                yield Finding("duplicate_text", number, row, f"same text as {keys.ids[rows[0]]}")


def find_leaks(keys: Sequence[Keys], names: Sequence[str]) -> Iterator[Finding]:
    """Find what two manifests share. It is held against the earlier: test sets come last, and stay as published.

    Args:
        keys: of each manifest, training data first.
        names: of the manifests, for the details.
    """
    for earlier, later in combinations(range(len(keys)), 2):
        one, two, name = keys[earlier], keys[later], names[later]
        yield from _leaks("leak_id", earlier, one.ids, two, two.ids, name)
        yield from _leaks("leak_audio", earlier, one.audio, two, two.audio, name)
        found = set(two.audio)
        for row, other in {row: other for row, other in _overlaps(one, two) if one.audio[row] not in found}.items():
            yield Finding("leak_audio", earlier, row, f"overlaps with {two.ids[other]} of {name} in its file")
        speakers = {*one.speakers, *two.speakers}
        one_voice = speakers if len(speakers) == 1 else set[str]()
        yield from _leaks("leak_speaker", earlier, one.speakers, two, two.speakers, name, one_voice)
        both = set(one.texts) & set(two.texts)
        prompts = sum(text in both for text in two.texts) > BY_DESIGN * len(two.texts)
        harmless = {text for text in both if prompts or _is_short(text)}
        yield from _leaks("leak_text", earlier, one.texts, two, two.texts, name, harmless)


def _is_short(text: str) -> bool:
    width = sum(2 if unicodedata.east_asian_width(character) in "FW" else 1 for character in text)
    words = len(text.split())
    return words < SHORT and width < max(SHORT_WIDTH, 12 * words)


def _leaks(
    kind: str,
    number: int,
    keys: Sequence[Hashable],
    other: Keys,
    other_keys: Sequence[Hashable],
    name: str,
    harmless: Set[Hashable] = frozenset(),
) -> Iterator[Finding]:
    there = {key: other.ids[row] for row, key in enumerate(other_keys) if key}
    for row, key in enumerate(keys):
        if key and key in there:
            yield Finding(kind, number, row, f"as {there[key]} of {name}", "notice" if key in harmless else "")


def _overlaps(one: Keys, two: Keys) -> Iterator[tuple[int, int]]:
    """Yield the rows of stretches of one file that share more than OVERLAP of the shorter."""
    there: defaultdict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for row, (path, begin, end) in enumerate(two.stretches):
        if two.audio[row]:
            there[path].append((begin, end, row))
    longest = {path: max(end - begin for begin, end, _ in stretches) for path, stretches in there.items()}
    for stretches in there.values():
        stretches.sort()
    for row, (path, begin, end) in enumerate(one.stretches):
        if one.audio[row] and (stretches := there.get(path)):
            near = stretches[bisect_left(stretches, (begin - longest[path],)) : bisect_left(stretches, (end,))]
            for other_begin, other_end, other in near:
                shared = min(end, other_end) - max(begin, other_begin)
                if shared > OVERLAP * min(end - begin, other_end - other_begin):
                    yield row, other


def _same_audio(keys: Keys) -> list[int]:
    """Give stretches of one file that only rounding sets apart the same hash."""
    same: dict[int, int] = {}
    for row, other in _overlaps(keys, keys):
        ends = zip(keys.stretches[row][1:], keys.stretches[other][1:], strict=True)
        if other < row and max(abs(one - two) for one, two in ends) <= DURATION_SECONDS:
            same[keys.audio[row]] = same.get(keys.audio[other], keys.audio[other])
    return [same.get(each, each) for each in keys.audio]


def _groups(keys: Sequence[Hashable]) -> list[list[int]]:
    """Group the rows that have the same key, in order."""
    rows: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if key:
            rows[key].append(row)
    return [group for group in rows.values() if len(group) > 1]
