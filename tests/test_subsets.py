"""Statistics against counting by hand, splits that share no speaker, filters."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import ConfigError, DataError
from asr.manifest import Manifest, Utterance, write_manifest
from asr.subsets import Rules, assign, describe, rank, sift, split

ROWS = [
    Utterance("a", "/a.wav", 1.0, "ABCDE", 0.0, "s1", "en"),
    Utterance("b", "/b.wav", 2.0, " ABCDE FGHI ", 0.0, "s1", "en"),
    Utterance("c", "/c.wav", 4.0, "", 0.0, "s2", "de"),
    Utterance("d", "/d.wav", 12.0, "ABC", 0.0, "", ""),
]


@pytest.fixture
def made(tmp_path) -> Manifest:
    write_manifest(tmp_path / "m.jsonl", ROWS)
    return Manifest.load(tmp_path / "m.jsonl")


def of_speakers(folder: Path, *speakers: str) -> Manifest:
    rows = [Utterance(f"u{n}", "/x.wav", 1.0, "x", speaker=speaker) for n, speaker in enumerate(speakers)]
    write_manifest(folder / "m.jsonl", rows)
    return Manifest.load(folder / "m.jsonl")


def test_describe(made):
    numbers = describe(made)
    assert json.loads(json.dumps(numbers)) == numbers
    assert (numbers["utterances"], numbers["speakers"], numbers["without_speaker"]) == (4, 2, 1)
    assert numbers["hours"] == pytest.approx(19 / 3600)
    assert numbers["without_text"] == 1
    assert numbers["languages"] == pytest.approx({"": 12 / 3600, "de": 4 / 3600, "en": 3 / 3600})
    assert numbers["duration"]["quantiles"]["0.5"] == 3.0
    assert numbers["duration"]["histogram"]["utterances"] == [0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert numbers["duration"]["histogram"]["edges"] == pytest.approx(list(range(13)))
    rates = numbers["characters_per_second"]
    assert (rates["0.0"], rates["0.5"], rates["1.0"]) == pytest.approx((0.25, 5.0, 5.0))


def test_describe_real_speech(manifest):
    numbers = describe(manifest)
    assert sum(numbers["duration"]["histogram"]["utterances"]) == len(manifest)
    assert 10 < numbers["characters_per_second"]["0.5"] < 20  # read English


def test_describe_without_any_text(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [Utterance("a", "/a.wav", 1.0)])
    assert describe(Manifest.load(tmp_path / "m.jsonl"))["characters_per_second"] is None


@given(
    names=st.lists(st.text(max_size=5), min_size=1, max_size=60),
    shares=st.lists(st.floats(0.01, 10), min_size=1, max_size=4),
)
def test_assigned_names_stay_together_and_no_split_is_empty(names, shares):
    table = {str(number): share for number, share in enumerate(shares)}
    if len(set(names)) < len(shares):
        with pytest.raises(DataError, match="cannot be divided"):
            assign(names, table)
        return
    where = assign(names, table)
    assert set(where.tolist()) == set(range(len(shares)))
    assert all(len({where[row] for row, other in enumerate(names) if other == name}) == 1 for name in set(names))
    # By hand: the hash decides, wherever that leaves no split empty.
    bounds = np.cumsum(shares) / sum(shares)
    expected = [int((bounds[:-1] < rank(name)).sum()) for name in names]
    if set(expected) == set(range(len(shares))):
        assert where.tolist() == expected


def test_rank_is_a_hash_that_is_the_same_everywhere():
    assert rank("1737") == int(hashlib.blake2b(b"1737", digest_size=8).hexdigest(), 16) / 2**64
    assert np.histogram([rank(str(n)) for n in range(10_000)], bins=4, range=(0, 1))[0] == pytest.approx(2500, abs=150)


def test_split_by_speaker_and_when_speakers_are_added(tmp_path):
    speakers = [f"s{n % 200}" for n in range(2000)]
    parts, warning = split(of_speakers(tmp_path, *speakers), {"train": 0.8, "dev": 0.1, "test": 0.1})
    assert warning == ""
    found = {name: {utterance.speaker for utterance in part} for name, part in parts.items()}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 200
    assert sum(map(len, parts.values())) == 2000
    assert 130 < len(found["train"]) < 180
    more, _ = split(of_speakers(tmp_path, *speakers, *map(str, range(300))), {"train": 0.8, "dev": 0.1, "test": 0.1})
    for name, part in more.items():
        assert found[name] <= {utterance.speaker for utterance in part}


def test_split_falls_back_to_utterances(tmp_path):
    parts, warning = split(of_speakers(tmp_path, *[""] * 30), {"train": 0.5, "dev": 0.5})
    assert warning == "30 of 30 utterances name no speaker: they were divided by utterance"
    assert all(5 < len(part) < 25 for part in parts.values())
    parts, warning = split(of_speakers(tmp_path, *["only"] * 30), {"train": 0.5, "dev": 0.5})
    assert warning == "only 1 speakers: divided by utterance, so parts share speakers"
    assert all(len(part) for part in parts.values())
    _, warning = split(of_speakers(tmp_path, *["a", "b", ""] * 9), {"train": 0.5, "dev": 0.5})
    assert warning.startswith("9 of 27")
    with pytest.raises(DataError, match="1 cannot be divided into 2 splits"):
        split(of_speakers(tmp_path, ""), {"train": 0.5, "dev": 0.5})


@pytest.mark.parametrize(
    ("rules", "kept", "dropped"),
    [
        ({}, "abcd", []),
        ({"min_duration": 2.0}, "bcd", [1]),
        ({"max_duration": 2.0}, "ab", [2]),
        ({"min_rate": 1.0}, "ab", [2]),
        ({"max_rate": 4.9}, "cd", [2]),
        ({"text": "^ABC(DE)?$"}, "ad", [2]),
        ({"speakers": ["s1", "zz"]}, "ab", [2]),
        ({"min_duration": 2.0, "max_duration": 10.0, "min_rate": 0.1}, "b", [1, 1, 1]),
    ],
)
def test_sift(made, rules, kept, dropped):
    left, counts = sift(made, Rules(**rules))
    assert "".join(utterance.id for utterance in left) == kept
    assert list(counts.values()) == dropped


def test_wrong_expression_is_one_line():
    with pytest.raises(ConfigError, match=r"'\(' is not a regular expression: "):
        Rules(text="(")
