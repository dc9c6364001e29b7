from __future__ import annotations

import base64
import io
import json
import re
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from browser import Elements, opened
from examples import small_config, waveforms

from asr.audio import SAMPLE_RATE
from asr.cli import main
from asr.errors import WriteError
from asr.features import LogMel
from asr.losses import decoder_inputs
from asr.model.attention import score, weigh
from asr.model.recognizer import Recognizer
from asr.tokenizer import BLANK
from asr.transcriber import Transcriber
from asr.transcript import Segment, Span, Transcript, Word
from asr.viewer import MOST_BYTES, MOST_PAGES, _attention, _frequencies, look_inside, quantised, write_pages

HOSTILE = (
    "<script>document.title='broken'</script><img src=http://example.invalid/x onerror=alert(1)> </script> & $$data"
)
NAME = "1737-146161-0010"


def unpacked(panel: dict) -> np.ndarray:
    """A panel's numbers, read as the page's script reads them."""
    values = np.frombuffer(zlib.decompress(base64.b64decode(panel["data"])), dtype=np.uint8)
    if len(panel["shape"]) < 4:
        return values.reshape(panel["shape"])
    *outer, keys = panel["shape"]
    rows = values.reshape(*outer, keys + 1)
    return rows[..., 1:] / 2.0 ** rows[..., :1]


def on_the_page(path: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def embedded() -> Transcriber:
    return Transcriber.load(None, "cpu")


@pytest.fixture(scope="module")
def written(embedded, tmp_path_factory) -> tuple[Path, Transcript]:
    """A page about a shipped utterance and the embedded model."""
    source = Path(__file__).parent / "data" / f"{NAME}.flac"
    transcript = embedded.transcribe(source, word_timestamps=True)
    pages = write_pages(tmp_path_factory.mktemp("pages"), NAME, embedded.model, source, transcript)
    assert pages.left_out == 0
    (path,) = pages.paths
    return path, transcript


def test_rows_on_the_page_sum_to_one(embedded, written):
    content, model = on_the_page(written[0]), embedded.model
    for name, layers in (("cross", model.decoder.blocks), ("encoder", model.encoder.blocks)):
        sums = unpacked(content[name]).sum(axis=-1)
        assert sums.shape[:2] == (len(layers), 4)
        np.testing.assert_allclose(sums, 1.0, atol=1e-4)


def test_weights_on_the_page_are_the_models(embedded, written):
    """Against the mechanism's own functions, applied by hand to what goes into the only cross-attention layer."""
    model, transcript = embedded.model, written[1]
    waveform, lengths = waveforms(NAME)
    (layer,) = (block.cross_attention for block in model.decoder.blocks)
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[:2]))
    with torch.inference_mode():
        encoder_out, frames = model.encode(waveform, lengths)
        model.decoder(decoder_inputs(torch.tensor([transcript.segments[0].tokens])), encoder_out, frames)
        hook.remove()
        ((x, memory),) = seen
        expected = weigh(score(layer.split(layer.query(x)), memory.key), None)[0].numpy()
    weights = unpacked(on_the_page(written[0])["cross"])[0]
    assert weights.shape == expected.shape
    assert np.abs(weights - expected).max() < 1 / 120
    assert np.corrcoef(weights.ravel(), expected.ravel())[0, 1] > 0.999


def test_every_panel_lasts_as_long_as_the_audio(written):
    path, transcript = written
    content = on_the_page(path)
    kind, audio = content["audio"].split(",")
    assert kind == "data:audio/flac;base64"
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(audio)), dtype="float32")
    assert rate == SAMPLE_RATE
    assert np.abs(heard - waveforms(NAME)[0][0].numpy()).max() <= 1 / 32768
    assert content["duration"] == transcript.duration == len(heard) / SAMPLE_RATE
    frames = {"mel": 0, "ctc": 1, "cross": 3, "encoder": 3}
    for name, axis in frames.items():
        panel = content[name]
        assert panel["begin"] == -panel["step"] / 2  # the first frame is centred on the first sample
        end = panel["begin"] + panel["shape"][axis] * panel["step"]
        assert abs(end - content["duration"]) <= panel["step"]
    loud = unpacked(content["mel"]).mean(axis=1)
    power = np.add.reduceat(heard**2, np.arange(0, len(heard), 160))
    assert (
        np.corrcoef(loud[: len(power)], np.log(power + 1e-6))[0, 1] > 0.8
    )  # the sound's picture is where the sound is


def test_words_know_their_tokens(embedded, written):
    path, transcript = written
    content = on_the_page(path)
    assert [word["text"] for word in content["words"]] == transcript.text.split()
    assert content["tokens"][-1] == "end"
    last = 0
    for word, timed in zip(content["words"], transcript.segments[0].words, strict=True):
        first, end = word["rows"]
        assert last <= first < end
        last = end
        pieces = "".join(content["tokens"][first:end])
        assert pieces.replace("\u2581", "") == word["text"]
        assert abs(word["start"] - timed.start) < 1e-3
    assert content["ctc"]["labels"][0] == embedded.model.tokenizer.piece(BLANK)
    assert unpacked(content["ctc"])[0].max() > 200  # there are pauses


@pytest.mark.parametrize("kind", ["conformer", "e_branchformer", "transformer"])
@pytest.mark.parametrize("positions, factor", [("rotary", 4), ("relative", 8)])
def test_any_checkpoint(tokenizer, kind, positions, factor):
    config = small_config(kind=kind, positions=positions, subsampling=factor)
    model = Recognizer(replace(config, decoder=replace(config.decoder, scoring="additive")), tokenizer).eval()
    waveform = waveforms(NAME)[0][0].numpy()
    tokens = tuple(tokenizer.encode("make warm"))
    words = (Word("MAKE", 0.5, 1.0, 0.5), Word("WARM", 1.0, 1.5, 0.5))
    content = look_inside(model, waveform, Segment("MAKE WARM", 0.0, 4.3, tokens, 0.0, words=words))
    frames = content["encoder"]["shape"][-1]
    assert content["cross"]["shape"] == [2, 2, len(tokens) + 1, frames]
    assert content["encoder"]["shape"] == [2, 2, frames, frames]
    assert content["cross"]["step"] == pytest.approx(0.01 * factor)
    for name in ("cross", "encoder"):
        np.testing.assert_allclose(unpacked(content[name]).sum(axis=-1), 1.0, atol=1e-4)
    silent = look_inside(model, waveform, Segment("", 0.0, 4.3, (), 0.0))
    assert silent["words"] == []
    assert silent["cross"]["shape"][2] == 1


def test_parts_keep_sums_and_are_close_to_the_weights():
    rng = np.random.default_rng(0)
    flat = np.full((1, 500), 1 / 500)
    single = np.eye(500)[:1]
    rows = np.concatenate((rng.dirichlet(np.full(500, 0.02), 50), rng.dirichlet(np.ones(500), 50), flat, single))
    parts = quantised(rows.astype(np.float32)).astype(float)
    weights = parts[:, 1:] / 2 ** parts[:, :1]
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-4)
    assert (np.abs(weights - rows) / rows.max(axis=1, keepdims=True)).max() < 1 / 60
    half = quantised((rows / 2).astype(np.float32)).astype(float)  # a wrong sum is not made right
    np.testing.assert_allclose((half[:, 1:] / 2 ** half[:, :1]).sum(axis=1), 0.5, atol=1e-4)


def test_frequencies_stand_where_their_tone_is_seen():
    log_mel = LogMel(80)
    for khz, height in _frequencies(log_mel):
        tone = torch.sin(2 * torch.pi * 1000.0 * khz * torch.arange(8000) / SAMPLE_RATE)[None]
        features = log_mel(tone, torch.tensor([8000]))[0][0]
        assert abs(int(features[20].argmax()) - 80 * height) < 1.5


def test_large_models_share_frames_until_they_fit():
    rng = np.random.default_rng(0)
    layers = list(rng.dirichlet(np.ones(301), size=(12, 8, 301)).astype(np.float32))
    panel = _attention(layers, 0.04, square=True)
    assert len(panel["data"]) <= MOST_BYTES * 4 / 3
    shared = round(panel["step"] / 0.04)
    assert shared > 1
    assert panel["shape"] == [12, 8, -(-301 // shared), -(-301 // shared)]
    assert panel["begin"] == -0.02
    weights = unpacked(panel)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-4)
    expected = layers[3][5, :shared, :shared].sum(axis=1).mean()
    assert weights[3, 5, 0, 0] == pytest.approx(expected, rel=0.05)


@pytest.fixture
def hostile(model, tokenizer, tmp_path) -> list[Path]:
    """Pages about a long recording whose name and words would like to be more than texts."""
    waveform = np.random.default_rng(0).normal(0, 0.1, 14 * SAMPLE_RATE).astype(np.float32)
    tokens = tuple(tokenizer.encode("make warm"))
    words = (Word(HOSTILE, 0.1, 0.4, 0.5), Word(HOSTILE, 0.4, 0.9, 0.5))
    spans = tuple(Span(float(second), second + 1.0, "decoded") for second in range(14))
    segments = (Segment(HOSTILE, 0.0, 1.0, tokens, 0.0, words=words),)
    transcript = Transcript(HOSTILE.replace("/", ""), 14.0, segments, spans, HOSTILE)
    pages = write_pages(tmp_path / "pages", 'a"<b>', model, (waveform, SAMPLE_RATE), transcript)
    assert pages.left_out == 14 - MOST_PAGES
    heard = on_the_page(pages.paths[4])["audio"].split(",")[1]
    part, _ = soundfile.read(io.BytesIO(base64.b64decode(heard)), dtype="float32")
    assert np.abs(part - waveform[4 * SAMPLE_RATE : 5 * SAMPLE_RATE]).max() <= 1 / 32768
    return pages.paths


def test_the_first_page_is_there_only_if_all_are(model, tmp_path, monkeypatch):
    def fails(path: Path, content: str) -> None:
        if len(list(tmp_path.iterdir())) == 2:
            raise WriteError("the disk is full")
        path.write_text(content, encoding="utf-8")

    monkeypatch.setattr("asr.viewer.write_file", fails)
    spans = tuple(Span(float(second), second + 1.0, "decoded") for second in range(3))
    transcript = Transcript("talk.wav", 3.0, (), spans, "tiny")
    with pytest.raises(WriteError):
        write_pages(tmp_path, "talk", model, (np.zeros(3 * SAMPLE_RATE, np.float32), SAMPLE_RATE), transcript)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.part-2.html", "talk.part-3.html"]


def test_hostile_texts_stay_texts(hostile):
    names = {path.name for path in hostile}
    assert len(names) == MOST_PAGES
    for path in (hostile[0], hostile[1], hostile[-1]):
        elements = Elements(path.read_text(encoding="utf-8")).found
        assert sum(tag == "script" for tag, _ in elements) == 2
        assert not any(tag in ("img", "iframe", "object", "b>") for tag, _ in elements)
        assert not any(name.startswith("on") for _, attributes in elements for name in attributes)
        policy = next(a["content"] for _, a in elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http" not in policy
        links = [value for _, a in elements for name in ("src", "href") if (value := a.get(name))]
        assert [link for link in links if not link.startswith(("data:", "./a%22%3Cb%3E.part-"))] == []
    assert "2 later stretches have no page" in hostile[-1].read_text(encoding="utf-8")


def test_hostile_texts_stay_texts_in_a_browser(hostile):
    with opened(hostile[0]) as page:
        page.wait_for_selector("html[data-ready]")
        assert page.locator("#text button").first.text_content() == HOSTILE
        assert page.title().startswith("<script>")
        assert page.locator("main img").count() == 0
        page.locator(".parts a").click()
        page.wait_for_selector("html[data-ready]")
        assert "part 2 of 12" in page.locator(".parts").inner_text()
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


def test_the_page_works_in_a_browser_without_network(written, tmp_path):
    with opened(written[0]) as page:
        page.wait_for_selector("html[data-ready]")
        content, words = on_the_page(written[0]), page.locator("#text button")
        assert words.all_inner_texts() == [word["text"] for word in content["words"]]
        wait_until(page, "player.readyState > 0")
        assert page.evaluate("player.duration") == pytest.approx(content["duration"], abs=0.02)
        # The script reads the weights as this test does.
        row = page.evaluate("Array.from(crossMap(0, 2).values.slice(0, data.cross.shape[3]))")
        np.testing.assert_allclose(row, unpacked(content["cross"])[0, 2, 0], atol=1e-6)

        words.nth(3).hover()
        assert_word(page, content["words"][3]["text"])
        words.nth(0).focus()
        assert_word(page, content["words"][0]["text"])
        before = pixels(page, "ribbons")
        page.keyboard.press("ArrowRight")
        assert_word(page, content["words"][1]["text"])
        assert pixels(page, "ribbons") != before  # each word has its own
        page.keyboard.press("Enter")  # plays that word, and no further
        wait_until(page, "player.paused && player.currentTime > 0")
        assert page.evaluate("player.currentTime") == pytest.approx(content["words"][1]["end"], abs=0.2)
        page.keyboard.press("Escape")
        assert_word(page, "all words")

        lane = page.locator("#lane").bounding_box()
        page.locator("#mel").click(position={"x": lane["width"] / 2, "y": 20})
        assert page.evaluate("player.currentTime") == pytest.approx(content["duration"] / 2, abs=0.02)
        left = "parseFloat(get('stack').style.getPropertyValue('--cursor-left'))"
        wait_until(page, f"Math.abs({left} - {lane['width'] / 2}) <= 2")
        lefts = page.evaluate("[...document.querySelectorAll('.time canvas')].map(c => c.getBoundingClientRect().left)")
        assert max(lefts) - min(lefts) < 0.5  # one time axis
        page.locator("#heads button").nth(2).click()
        assert page.locator("#heads [aria-pressed=true]").count() == 1
        assert "layer 1, head 3" in page.locator("#selfname").inner_text()
        page.keyboard.press("ArrowRight")
        assert "layer 1, head 4" in page.locator("#selfname").inner_text()
        page.locator("#map1").hover(position={"x": 50, "y": 10})
        assert "weight" in page.locator("#readout").inner_text()
        page.locator("#in").click()
        assert page.locator("#pan").is_visible()
        background = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(background)
        page.locator("#theme").click()
        assert page.evaluate(background) != light
        page.screenshot(path=tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 20_000
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


def test_keys_on_the_words(written):
    stops = "[...get('text').children].map((word, index) => word.tabIndex ? [] : [index]).flat()"
    with opened(written[0]) as page:
        page.wait_for_selector("html[data-ready]")
        lengths = [word["end"] - word["start"] for word in on_the_page(written[0])["words"]]
        longest = lengths.index(max(lengths))
        assert page.evaluate(stops) == [longest] != [0]  # the one that is marked
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement === get('text').children[view.focused]")
        assert page.evaluate("view.focused") == longest
        page.locator("#text button").nth(1).click()
        wait_until(page, "player.paused && player.currentTime > 0")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(stops) == [2]
        page.evaluate("player.currentTime = 0")
        page.keyboard.press("Space")  # plays on from where it is, not that word
        wait_until(page, "player.currentTime > 0.1")
        assert page.evaluate("view.stop") is None
        page.keyboard.press("Space")
        wait_until(page, "player.paused")
        assert page.complaints == []


def test_the_cursor_moves_through_every_panel_while_it_plays(written):
    with opened(written[0]) as page:
        page.wait_for_selector("html[data-ready]")
        page.keyboard.press("Escape")
        still = cursors(page)
        assert set(still) == {"lane", "mel", "ctc", "ribbons", "map0", "map1", "map2", "map3", "self"}
        page.keyboard.press("Space")
        wait_until(page, "player.currentTime > 0.3")
        page.keyboard.press("Space")
        wait_until(page, "player.paused")
        page.wait_for_timeout(100)
        expected = page.evaluate("player.currentTime / player.duration * view.width")
        for name, left in cursors(page).items():
            assert left - still[name] == pytest.approx(expected, abs=1.5), name


def cursors(page) -> dict[str, float]:
    """Where the cursor stands in each panel, in pixels from where its canvas begins."""
    return page.evaluate(
        """Object.fromEntries([...document.querySelectorAll(".time")].map((row) => {
            const canvas = row.querySelector("canvas"), cursor = getComputedStyle(row, "::after");
            if (cursor.opacity !== "1" || !(parseFloat(cursor.height) >= canvas.clientHeight)) return [canvas.id, NaN];
            return [canvas.id, row.getBoundingClientRect().left + parseFloat(cursor.left) + 1
                               - canvas.getBoundingClientRect().left];
        }))"""
    )


def test_no_frame_is_left_out_in_a_narrow_window(written):
    with opened(written[0]) as page:
        page.wait_for_selector("html[data-ready]")
        seen = page.evaluate(
            """Array.from({ length: 40 }, (_, place) => {
                view.width = 270;
                const image = paint(500, 1, (x) => x === 300 + place ? [0, 0, 0, 255] : [0, 0, 0, 0]);
                const canvas = document.createElement("canvas"), context = surface(canvas, 10);
                across(context, image, { begin: 0, step: data.duration / 500 }, 0, 10);
                return Math.max(...context.getImageData(0, 5, canvas.width, 1).data);
            })"""
        )
        assert min(seen) > 5


def wait_until(page, expression: str) -> None:
    """Ask again and again; Playwright's own way to wait needs `eval`, which the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def assert_word(page, text: str) -> None:
    wait_until(page, f"get('word').textContent === {json.dumps(text)}")


def pixels(page, name: str) -> str:
    return page.evaluate(f"document.getElementById('{name}').toDataURL()")


def test_from_the_command_line(data, tmp_path, monkeypatch, capsys):
    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["asr", "transcribe", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), (output := capsys.readouterr()).out + output.err

    soundfile.write(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    code, output = run(data / f"{NAME}.flac", tmp_path / "silence.wav", "--attention", tmp_path / "out")
    assert code == 0, output
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{NAME}.html"]
    assert (tmp_path / "out" / f"{NAME}.html").stat().st_size < 5_000_000
    assert "no one speaks" in output
    both = (data / f"{NAME}.flac", data / "1737-146161-0013.flac")
    for jobs in (1, 2):  # a page shows its own recording, whatever else is heard meanwhile
        code, output = run(*both, "--attention", tmp_path / str(jobs), "--jobs", jobs)
        assert code == 0, output
    for page in (tmp_path / "1").iterdir():
        assert page.read_bytes() == (tmp_path / "2" / page.name).read_bytes()
