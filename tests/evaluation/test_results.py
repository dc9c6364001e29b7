from __future__ import annotations

import csv
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asr.config import resource
from asr.errors import DataError, WriteError
from asr.evaluation.results import BEGIN, END, append_csv, check_table, commit, read_json, update_table, write_json
from asr.evaluation.summary import summarise
from asr.normalize import get_normalizer

ROWS = [{"id": "a", "reference": "one two", "hypothesis": "one too", "speaker": "s"}]


@pytest.fixture
def result():
    facts = {"model": "english", "parameters": 2_300_000, "hardware": "CPU, 2 threads", "commit": "abc", "version": "1"}
    run = {
        "date": "2026-11-23",
        "decoding": {"mode": "ctc"},
        "decoding_label": "ctc",
        "real_time_factor": 0.01,
        "busy": False,
    }
    found = summarise(ROWS, get_normalizer("basic")) | facts | run | {"audio_seconds": 3.0}
    found["data"]["name"] = "set/dev.jsonl"
    return found


@pytest.fixture
def readme(tmp_path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(f"# Corpus\n\n{BEGIN}\n{END}\n\nThe end.\n")
    return path


@pytest.mark.parametrize("path", sorted(resource("recipes").glob("*/README.md")), ids=lambda path: path.parent.name)
def test_no_table_of_a_recipe_was_edited_by_hand(path):
    if BEGIN not in path.read_text(encoding="utf-8"):
        pytest.skip("has no table yet")
    check_table(path)


def test_a_word_on_why_there_is_no_number_gives_way_to_one(readme, result):
    readme.write_text(f"{BEGIN}\nNot trained here yet.\n{END}\n")
    assert check_table(readme) == 0
    update_table(readme, result)
    assert check_table(readme) == 1
    assert "Not trained" not in readme.read_text()


def test_rows_are_added_and_replaced(readme, result):
    update_table(readme, result)
    update_table(readme, result | {"decoding_label": "attention, beam_size 4"})
    assert check_table(readme) == 2
    update_table(readme, result | {"real_time_factor": 0.5, "busy": True})
    text = readme.read_text()
    assert check_table(readme) == 2
    assert text.startswith("# Corpus\n\n")
    assert text.endswith(f"{END}\n\nThe end.\n")
    assert "0.5000 (busy machine)" in text
    assert "0.0100" in text  # the other row is as it was
    assert "50.00 [50.0, 50.0] by 1 utterances" in text
    for part in ("| 2026-11-23 | abc | english | 2.3 M | CPU, 2 threads |", "attention, beam_size 4", "set/dev.jsonl"):
        assert part in text
    assert f"normaliser basic {get_normalizer('basic').hash}" in text


@pytest.mark.parametrize(("old", "new"), [("50.00", "5.00"), ("| english", "| better"), ("sha256 ", "sha256 0")])
def test_a_number_edited_by_hand_is_refused(readme, result, old, new):
    update_table(readme, result)
    readme.write_text(readme.read_text().replace(old, new, 1))
    for refuse in (check_table, lambda path: update_table(path, result)):
        with pytest.raises(DataError, match="edited by hand"):
            refuse(readme)


def test_a_table_typed_by_hand_or_without_markers_is_refused(readme, tmp_path, result):
    readme.write_text(f"{BEGIN}\n| model | WER |\n|---|---|\n| mine | 0.1 |\n{END}\n")
    with pytest.raises(DataError, match="edited by hand"):
        check_table(readme)
    readme.write_text("# Nothing\n")
    with pytest.raises(DataError, match="needs the lines"):
        update_table(readme, result)
    with pytest.raises(DataError, match="cannot be read"):
        check_table(tmp_path / "gone.md")


def test_names_cannot_break_the_table(readme, result):
    update_table(readme, result | {"model": "a | b\n--> <script>"})
    assert check_table(readme) == 1
    assert "<script>" not in readme.read_text()


def test_csv_rows_of_many_programs_do_not_mix(tmp_path, result):
    path = tmp_path / "all" / "results.csv"
    names = [f"=model {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: append_csv(path, result | {"model": name}), names))
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["model"] for row in rows) == sorted(f"'{name}" for name in names)  # never a formula
    assert {(row["wer"], row["normalizer_hash"]) for row in rows} == {("0.5", get_normalizer("basic").hash)}
    assert {(row["cer_low"], row["cer"], row["cer_high"]) for row in rows} == {(str(1 / 7),) * 3}  # one utterance
    assert [entry.name for entry in path.parent.iterdir()] == ["results.csv"]
    path.write_bytes(path.read_bytes()[:-1])  # an editor dropped the end of the last line
    append_csv(path, result | {"model": "last"})
    with open(path, newline="") as file:
        assert len(list(csv.DictReader(file))) == len(names) + 1
    path.write_text("other,columns\n")
    with pytest.raises(DataError, match="other columns"):
        append_csv(path, result)


def test_json_comes_back(tmp_path, result):
    write_json(tmp_path / "r.json", result)
    assert read_json(tmp_path / "r.json") == json.loads(json.dumps(result))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="is no result of asr evaluate"):
        read_json(tmp_path / "other.json")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_json(tmp_path / "gone.json")


def test_a_table_that_cannot_be_written_and_a_machine_without_git(tmp_path, result, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written"):
        append_csv(tmp_path / "file" / "r.csv", result)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None


def test_the_rates_of_the_readme_are_those_of_the_recipes_tables():
    root = Path(__file__).parents[2]
    rate = re.compile(r"\d+\.\d\d \[\d+\.\d, \d+\.\d\]")
    quoted = rate.findall((root / "README.md").read_text("utf-8"))
    tables = "".join(
        (root / "recipes" / name / "README.md").read_text("utf-8") for name in ("english_embedded", "spoken_digits")
    )
    assert len(quoted) > 4
    assert set(quoted) <= set(rate.findall(tables))
