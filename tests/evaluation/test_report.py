from __future__ import annotations

import json
import re
import sys

import pytest
from browser import Elements, opened
from examples import DATA

from asr.cli import main
from asr.evaluation import report as report_module
from asr.evaluation.report import write_report
from asr.evaluation.summary import summarise
from asr.manifest import Manifest
from asr.normalize import get_normalizer

HOSTILE = (
    "<script>document.title='broken'</script><img src=http://example.invalid/x onerror=alert(1)> </script> & $$data"
)


@pytest.fixture
def report(tmp_path, manifest):
    """A report on the shipped utterances with a few errors, and texts that would like to be more than texts."""
    rows = [
        {"id": u.id, "reference": u.text, "hypothesis": u.text.lower(), "speaker": u.speaker, "duration": u.duration}
        for u in manifest
    ]
    rows[0]["hypothesis"] = rows[0]["hypothesis"].replace("knit", "net")
    rows[1]["hypothesis"] = ""
    hostile = {"id": f"x{HOSTILE}", "reference": HOSTILE, "hypothesis": f"{HOSTILE}{HOSTILE}", "speaker": HOSTILE}
    result = summarise([*rows, hostile | {"duration": 1.0, "snr": 12.0}], get_normalizer("none"))
    result |= {"model": HOSTILE, "decoding_label": "ctc", "date": "2026-11-23"}
    path = write_report(tmp_path / "report", result, manifest)
    return path, result


def test_hostile_texts_stay_texts(report):
    elements = Elements(report[0].read_text(encoding="utf-8")).found
    assert sum(tag == "script" for tag, _ in elements) == 2
    assert not any(tag in ("img", "iframe", "object") for tag, _ in elements)
    assert not any(name.startswith("on") for _, attributes in elements for name in attributes)
    policy = next(a["content"] for _, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_page_holds_every_utterance_and_its_audio(report, manifest):
    text = report[0].read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    content = json.loads(found[1])
    assert len(content["utterances"]) == len(manifest) + 1
    assert content["audio"].keys() == set(manifest.table["id"].to_pylist())
    assert all(uri.startswith("data:audio/mpeg;base64,") for uri in content["audio"].values())
    errors = sum(isinstance(pair, list) for row in content["utterances"] for pair in row["words"])
    assert errors == sum(report[1][kind] for kind in ("substitutions", "deletions", "insertions"))
    members = [row for each in content["slices"] if each["name"].startswith("speaker") for row in each["rows"]]
    assert sorted(members) == list(range(len(manifest) + 1))


def test_the_plain_text_is_laid_out_like_icefalls(tmp_path):
    rows = [
        {"id": "u1", "reference": "the cat sat on the mat", "hypothesis": "well the cat sit on mat"},
        {"id": "u2", "reference": "the end", "hypothesis": "the end"},
    ]
    write_report(tmp_path, summarise(rows, get_normalizer("none")))
    lines = (tmp_path / "errors.txt").read_text().splitlines()
    assert lines[0] == "%WER 37.50 [3 / 8, 1 ins, 1 del, 1 sub]"
    assert "u1:\t(*->well) the cat (sat->sit) on (the->*) mat" in lines
    assert "u2:\tthe end" in lines
    assert lines[lines.index("SUBSTITUTIONS: count reference -> hypothesis") + 1] == "1   sat -> sit"
    assert "the   2 1 3 2" in lines  # found twice, missed once; three times said, twice heard


@pytest.fixture
def page(report):
    """The report in headless Chromium, with everything that it asks for and complains about."""
    with opened(report[0]) as page:
        yield page


def test_the_page_works_in_a_browser_without_network(page, manifest, tmp_path):
    shown, count = page.locator("article"), page.locator("#count")
    assert shown.count() == len(manifest) + 1
    assert not page.locator("#more").is_visible()  # all are shown
    assert HOSTILE in page.title()
    assert page.locator("main img, article script").count() == 0
    page.fill("#search", "knit together")
    assert 0 < shown.count() < len(manifest)
    page.fill("#search", "")
    page.locator("[data-kind=empty]").click()
    assert count.inner_text() == f"1 of {len(manifest) + 1}"
    page.locator("[data-kind=empty]").click()
    page.locator("#confusions button", has_text="net").first.click()
    assert "KNIT" in page.locator("mark").first.inner_text()
    page.locator("#clear").click()
    page.locator("svg .row").first.click()
    assert 0 < shown.count() < len(manifest)
    assert page.locator("#clear").is_visible()
    page.locator("#clear").click()
    assert page.locator("svg .whisker").count() == page.locator("svg .few").count() > 0  # few utterances: rough
    audio = page.locator("audio").first
    seconds = audio.evaluate(
        "player => new Promise((done, fail) => { player.onloadedmetadata = () => done(player.duration); "
        "player.onerror = () => fail(player.error.message); player.preload = 'auto'; player.load(); })"
    )
    assert 1 < seconds < 20
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    page.locator("#theme").click()
    assert page.evaluate(background) != before
    page.screenshot(path=tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


def test_what_watches_the_page_would_see_a_request(page):
    page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
    page.wait_for_timeout(200)
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    hypotheses = tmp_path / "hyp.txt"
    hypotheses.write_text("".join(f"{u.id} {u.text.lower()} indeed\n" for u in Manifest.load(DATA / "manifest.jsonl")))
    arguments = ["score", "--ref", DATA / "manifest.jsonl", "--hyp", hypotheses, "--slice-by", "speaker"]
    files = ["--report", tmp_path / "out", "--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv"]
    for verb in ([*arguments, *files], ["compare", tmp_path / "r.json", tmp_path / "r.json"]):
        monkeypatch.setattr(sys, "argv", ["asr", *map(str, verb)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    output = capsys.readouterr().out
    words = sum(len(text.split()) for text in Manifest.load(DATA / "manifest.jsonl").texts)
    assert f"WER {100 * 12 / words:.2f} %" in output
    assert len(re.findall(r"95 % interval \d+\.\d\d to \d+\.\d\d", output)) == 2  # of the WER and of the CER
    assert "speaker 3947" in output
    assert "p = 1.0000" in output
    assert (tmp_path / "out" / "report.html").is_file()
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 2


def test_slices_of_a_long_report_keep_their_members(tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "MOST_UTTERANCES", 30)
    rows = [{"id": f"{n:03}", "reference": "a b", "hypothesis": "a", "pitch": n} for n in range(100)]
    found = summarise(rows, get_normalizer("none"), ["pitch"])
    text = write_report(tmp_path, found).read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data
    slices = json.loads(data[1])["slices"]
    assert sorted(row for each in slices for row in each["rows"]) == list(range(30))
