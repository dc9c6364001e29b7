from __future__ import annotations

import copy

import pytest

from asr.errors import DataError
from asr.evaluation.compare import compare, describe
from asr.evaluation.summary import summarise
from asr.normalize import get_normalizer

ROWS = [
    {
        "id": f"{speaker}-{number}",
        "reference": "one two three four",
        "hypothesis": "one two too for",
        "speaker": speaker,
    }
    for speaker in "abcdefghijkl"
    for number in range(4)
]


def result(rows, normalizer="basic"):
    return summarise(rows, get_normalizer(normalizer)) | {"model": "m"}


def test_a_better_system_is_found_better():
    second = [row | {"hypothesis": "one two three for"} if row["id"].endswith("0") else row for row in ROWS]
    found = compare(result(ROWS), result(second[::-1]))  # the order is not the same, the utterances are
    assert found["difference"] == pytest.approx(-12 / 192)
    assert (found["better"], found["worse"], found["same"]) == (12, 0, 36)
    assert found["p_value"] < 0.001
    assert found["interval"]["high"] < 0
    assert {row["id"] for row in found["changed"]} == {row["id"] for row in ROWS if row["id"].endswith("0")}
    text = "\n".join(describe(found, 2))
    assert "B is better" in text
    assert text.count("reference") == 2
    back = compare(result(second), result(ROWS))
    assert back["difference"] == -found["difference"]
    assert "B is worse" in "\n".join(describe(back, 0))


def test_a_result_does_not_differ_from_itself():
    found = compare(result(ROWS), result(ROWS))
    assert (found["difference"], found["p_value"], found["changed"]) == (0, 1, [])
    assert "no difference" in "\n".join(describe(found, 5))


def test_another_text_with_as_many_errors_is_a_change():
    second = [ROWS[0] | {"hypothesis": "one two to for"}, *ROWS[1:]]
    found = compare(result(ROWS), result(second))
    assert [row["id"] for row in found["changed"]] == ["a-0"]
    assert found["same"] == len(ROWS)


def test_unlike_things_are_not_compared():
    base = result(ROWS)
    with pytest.raises(DataError, match=r"normalisers differ: basic 1 .* and none 1"):
        compare(base, result(ROWS, "none"))
    with pytest.raises(DataError, match=r"the data differ: .*'l-3' is in one only"):
        compare(base, result(ROWS[:-1]))
    changed = copy.deepcopy(ROWS)
    changed[5]["reference"] = "something else"
    with pytest.raises(DataError, match="'b-1' has another reference"):
        compare(base, result(changed))
