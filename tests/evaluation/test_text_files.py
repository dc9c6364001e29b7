from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from asr.errors import DataError
from asr.evaluation.text_files import read_texts, score_files
from asr.manifest import Manifest

SCLITE = Path(__file__).parent / "sclite"
EXPECTED = json.loads((SCLITE / "expected.json").read_text())


def errors(row):
    return row["substitutions"] + row["deletions"] + row["insertions"]


def test_errors_of_real_hypotheses_equal_sclites():
    """The sums; sclite weighs a substitution 4 and the others 3, so it parts equal sums in another way."""
    result = score_files(SCLITE / "ref.trn", SCLITE / "hyp.trn", "none")
    assert (result["words"], errors(result)) == (EXPECTED["trn"]["sum"][0], EXPECTED["trn"]["sum"][5])
    for row in result["slices"]["speaker"]:
        assert (row["words"], row["errors"]) == (EXPECTED["trn"][row["value"]][0], EXPECTED["trn"][row["value"]][5])


def test_sclite_parts_equal_sums_by_its_weights():
    """Why our substitutions are not sclite's: its alignment is the cheapest at 4, 3 and 3, ours at 1, 1 and 1."""
    kaldialign = pytest.importorskip("kaldialign")
    references, hypotheses = (read_texts(SCLITE / name) for name in ("ref.trn", "hyp.trn"))
    rows = [(references[name]["text"].split(), hypotheses[name]["text"].split()) for name in references]
    parts = kaldialign.batch_error_rate(*zip(*rows, strict=True), sclite_mode=True)
    _, _, substitutions, deletions, insertions, _ = EXPECTED["trn"]["sum"]
    cheapest = 4 * parts["sub"] + 3 * (parts["del"] + parts["ins"])
    assert 4 * substitutions + 3 * (deletions + insertions) == cheapest


def test_ctm_against_stm_equals_sclite_with_words_in_the_gaps():
    result = score_files(SCLITE / "ref.stm", SCLITE / "hyp.ctm", "none")
    assert (result["words"], errors(result)) == (EXPECTED["ctm"]["sum"][0], EXPECTED["ctm"]["sum"][5])
    assert result["slices"]["duration"][0]["value"] == "2 to 5 s"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_format_says_the_same(tmp_path):
    files = [
        write(tmp_path / "text", "u-1 hello world\nu-2\tgood  bye\n"),
        write(tmp_path / "a.jsonl", '{"id": "u-1", "text": "hello world"}\n{"id": "u-2", "text": "good bye"}\n'),
        write(tmp_path / "a.trn", ";; comment\nhello world (u-1)\ngood bye (u-2)\n"),
        write(
            tmp_path / "result.jsonl", '{"id":"u-1","hypothesis":"hello world"}\n{"id":"u-2","hypothesis":"good bye"}\n'
        ),
    ]
    for file in files:
        texts = {name: row["text"].split() for name, row in read_texts(file).items()}
        assert texts == {"u-1": ["hello", "world"], "u-2": ["good", "bye"]}
        assert score_files(files[0], file)["wer"] == 0


def test_missing_hypotheses_are_deletions_and_unknown_ones_an_error(tmp_path):
    reference = write(tmp_path / "ref", "u1 one two\nu2 three four\n")
    result = score_files(reference, write(tmp_path / "hyp", "u1 one two\n"))
    assert (result["deletions"], result["missing_hypotheses"]) == (2, 1)
    with pytest.raises(DataError, match=r"1 of 2 ids are not in .*'u9'"):
        score_files(reference, write(tmp_path / "other", "u1 one two\nu9 three\n"))


def test_ignored_stretches_and_empty_segments(tmp_path):
    stm = write(
        tmp_path / "a.stm",
        "call A spk 0 2 <o,f0,male> one two\ncall A x 2 4 IGNORE_TIME_SEGMENT_IN_SCORING\ncall A spk 4 6\n",
    )
    ctm = write(
        tmp_path / "a.ctm", "call A 1.0 0.3 two\ncall A 0.1 0.3 one\ncall A 2.5 .2 what\ncall A 4.5 0.1 hm 0.9\n"
    )
    result = score_files(stm, ctm)
    assert (result["wer"], result["words_on_empty_references"], result["utterances"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.trn", "no brackets\n", "line 1: should be a text and its id"),
        ("a.trn", "hello (u-1)\ni { am / 'm } here (u-2)\n", "line 2: alternatives { a / b } and optional"),
        ("a.trn", "yes (uh) it is (u-1)\n", "line 1: alternatives"),
        ("a.stm", "call A spk 0 1 <o,f0> i { am / 'm } here\n", "line 1: alternatives"),
        ("a.stm", "call A spk 0 x hello\n", "line 1: 'x' is not a number of seconds"),
        ("a.stm", "call A\n", "line 1: should be file"),
        ("a.ctm", ";; call\ncall A 0 1\n", "line 2: should be file, channel, begin, duration and word"),
        ("a.ctm", "call A 0 soon word\n", "'soon' is not a number of seconds"),
        ("a.ctm", "call A 0 -1 word\n", "'-1' is not a number of seconds"),
        ("a.ctm", "call A 0 1 <ALT_BEGIN>\n", "alternatives are not supported"),
        ("a.jsonl", '{"id": "a"}\n', "no line has one of hypothesis, pred_text, text"),
        ("a.jsonl", '{"text": "a"}\n', "line 1: needs an id"),
        ("a.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("a.jsonl", "nonsense\n", "line 1: not JSON"),
        ("a.txt", "u1 a\nu1 b\n", "line 2: id 'u1' is there a second time"),
        ("a.txt", "\n", "holds no text"),
        ("a.csv", "id,text\n", "tables with commas are not read"),
        ("a.tsv", "start\tend\ttext\n", "line 1: should be id, tab and text, not 3 columns"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read_texts(write(tmp_path / name, text))
    with pytest.raises(DataError, match="cannot be read"):
        read_texts(tmp_path / "gone.txt")


def test_the_words_of_a_ctm_without_segments_are_one_text(tmp_path):
    ctm = write(tmp_path / "a.ctm", ";; comment\ncall A 0.0 0.3 one\ncall A 0.4 0.3 two\ncall B 0.0 0.3 three\n")
    texts = {name: row["text"] for name, row in read_texts(ctm).items()}
    assert texts == {"call A": "one two", "call B": "three"}


def test_values_that_no_result_can_hold_are_left_out(tmp_path):
    line = '{"id": "a", "text": "one", "snr": NaN, "duration": "2.0", "other": Infinity, "kept": 1.5}\n'
    assert read_texts(write(tmp_path / "a.jsonl", line)) == {"a": {"id": "a", "text": "one", "kept": 1.5}}


def test_a_table_may_have_a_head(tmp_path):
    rows = read_texts(write(tmp_path / "a.tsv", "id\ttext\nu1\thello world\nu2\n"))
    assert {name: row["text"] for name, row in rows.items()} == {"u1": "hello world", "u2": ""}


def test_a_ctm_is_scored_against_a_manifest_by_its_recordings(tmp_path):
    reference = write(tmp_path / "a.jsonl", '{"id": "talk", "text": "one two"}\n')
    result = score_files(reference, write(tmp_path / "a.ctm", "talk 1 0.0 0.3 one\ntalk 1 0.4 0.3 two\n"))
    assert result["wer"] == 0
    with pytest.raises(DataError, match="several channels"):
        score_files(reference, write(tmp_path / "b.ctm", "talk 1 0.0 0.3 one\ntalk 2 0.4 0.3 two\n"))


def test_ids_are_the_same_in_either_form_of_their_accents(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "für") for form in ("NFC", "NFD"))
    assert composed != decomposed
    result = score_files(
        write(tmp_path / "a.txt", f"{composed} one\n"), write(tmp_path / "b.txt", f"{decomposed} one\n")
    )
    assert result["missing_hypotheses"] == 0


def test_words_of_a_recording_without_reference_are_refused(tmp_path):
    stm = write(tmp_path / "a.stm", "call A anna 0.0 2.0 one two\n")
    ctm = write(tmp_path / "a.ctm", "other A 0.0 0.3 one\n")
    with pytest.raises(DataError, match="recording 'other A' is not in the references"):
        score_files(stm, ctm)


def test_what_was_recognised_is_not_taken_for_the_reference(tmp_path):
    (tmp_path / "ref").write_text("u one two\n")
    (tmp_path / "nemo.jsonl").write_text('{"id": "u", "text": "one two", "pred_text": "one too"}\n')
    assert score_files(tmp_path / "ref", tmp_path / "nemo.jsonl")["wer"] == 0.5
    (tmp_path / "ours.jsonl").write_text('{"id": "u", "reference": "one two", "hypothesis": "one too"}\n')
    assert score_files(tmp_path / "ours.jsonl", tmp_path / "ours.jsonl")["wer"] == 0.5


def test_ignored_stretches_do_not_count_and_endings_may_be_capitals(tmp_path):
    lines = ["a 1 s 0 1 one two", "a 1 s 1 2 IGNORE_TIME_SEGMENT_IN_SCORING"]
    (tmp_path / "ref.STM").write_text("\n".join(lines) + "\n")
    (tmp_path / "hyp").write_text("a-1-0-1 one two\n")
    assert score_files(tmp_path / "ref.STM", tmp_path / "hyp")["words"] == 2
    (tmp_path / "hyp.CTM").write_text("a 1 0.1 0.2 one\na 1 0.5 0.2 two\na 1 1.5 0.2 three\n")
    result = score_files(tmp_path / "ref.STM", tmp_path / "hyp.CTM")
    assert (result["words"], result["wer"]) == (2, 0.0)


def test_an_utterance_without_a_hypothesis_does_not_get_its_reference(tmp_path):
    lines = [{"id": n, "text": "a b c", "pred_text": "x y z", "speaker": n % 2} for n in range(4)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = score_files(tmp_path / "m.jsonl", tmp_path / "m.jsonl")
    assert result["wer"] == 1.0
    assert {row["id"] for row in result["results"]} == {"0", "1", "2", "3"}
    assert [name for name, *_ in (row.values() for row in result["slices"]["speaker"])] == ["0", "1"]
    for missing in ({"pred_text": None}, {}):
        odd = {key: value for key, value in lines[2].items() if key != "pred_text"} | missing
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines[:2], odd, lines[3]]))
        with pytest.raises(DataError, match=r"line 3: needs an id .* and pred_text"):
            score_files(tmp_path / "m.jsonl", tmp_path / "m.jsonl")


def test_stretches_of_a_file_without_ids_are_named_as_a_manifest_names_them(tmp_path):
    file = {"audio_filepath": "a/x.wav", "duration": 1.0}
    rows = [file | {"offset": start, "text": f"word {start}"} for start in (0, 1)]
    reference = write(tmp_path / "ref.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    ids = Manifest.load(reference).table["id"].to_pylist()
    assert list(read_texts(reference)) == ids == ["x", "x-1"]
    with pytest.raises(DataError, match=r"none\.jsonl, line 1: needs an id"):
        read_texts(write(tmp_path / "none.jsonl", '{"text": "a"}\n{"text": "b"}\n'))
    hypothesis = write(tmp_path / "hyp.txt", "x-1 word 1\nx word 0\n")
    assert score_files(reference, hypothesis)["wer"] == 0


def test_words_go_to_the_segment_around_them_where_segments_overlap(tmp_path):
    (tmp_path / "r.stm").write_text("f 1 A 0 100 one two three four\nf 1 B 10 12 yes\nf 1 C 110 120 last\n")
    words = ("one", 1), ("yes", 11), ("two", 50), ("three", 60), ("four", 70), ("last", 108)
    (tmp_path / "h.ctm").write_text("".join(f"f 1 {start} 0.5 {word}\n" for word, start in words))
    assert score_files(tmp_path / "r.stm", tmp_path / "h.ctm")["wer"] == 0.0
    (tmp_path / "r.stm").write_text("f 1 A 10 5 one\n")
    with pytest.raises(DataError, match="line 1: ends at 5 s, before it begins"):
        score_files(tmp_path / "r.stm", tmp_path / "h.ctm")
