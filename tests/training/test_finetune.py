from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import yaml
from examples import small_config, waveforms
from runs import TINY, composed

from asr.errors import ConfigError
from asr.evaluation.evaluate import evaluate
from asr.manifest import Manifest
from asr.model import checkpoint
from asr.model.recognizer import Recognizer
from asr.tokenizer import SPECIALS, TokenizerConfig, extend_tokenizer, train_tokenizer
from asr.training.config import FinetuneConfig
from asr.training.finetune import CLOSING, begin_with, deepen, merged, restrict
from asr.training.fit import train
from asr.transcriber import EMBEDDED, Transcriber

CHARACTERS = TokenizerConfig(kind="char")


@pytest.fixture
def source() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(small_config(layers=2), train_tokenizer(["one two three"], CHARACTERS)).eval()


def rows(model: Recognizer) -> dict[str, torch.Tensor]:
    """Each token's output rows, by the token as it is written."""
    heads = torch.cat((model.decoder.embedding.weight, model.ctc_head.weight, model.ctc_head.bias[:, None]), dim=1)
    return {model.tokenizer.piece(token): heads[token].detach() for token in range(len(model.tokenizer))}


def test_an_extended_tokenizer_keeps_every_id_and_knows_the_new_characters(source):
    extended = extend_tokenizer(source.tokenizer, ["two buzzing bees"])
    old = len(source.tokenizer)
    assert [extended.piece(token) for token in range(old)] == [source.tokenizer.piece(token) for token in range(old)]
    assert {extended.piece(token) for token in range(old, len(extended))} == set("buzigs")
    assert extended.encode("one two three") == source.tokenizer.encode("one two three")
    assert extended.decode(extended.encode("two buzzing bees")) == "two buzzing bees"


@pytest.mark.parametrize("choice", ["extend", "new"])
def test_rows_stay_with_their_token(source, choice, caplog):
    texts = ["two buzzing bees"]
    model = begin_with(source, texts, FinetuneConfig(tokenizer=choice), CHARACTERS)
    before, after = rows(source), rows(model)
    shared = before.keys() & after.keys()
    assert len(shared) > SPECIALS
    for piece in shared:
        assert torch.equal(before[piece], after[piece]), piece
    assert f"{len(after.keys() - before.keys())} of {len(after)} tokens are new" in caplog.text
    for name, weight in source.encoder.state_dict().items():
        assert torch.equal(weight, model.encoder.state_dict()[name])


def test_letters_that_a_kept_vocabulary_lacks_are_named(source, caplog):
    begin_with(source, ["one two", "two 2 buzzing", "three"], FinetuneConfig(), CHARACTERS)
    (message,) = caplog.messages
    assert message.startswith("1 of 3 texts hold what the model's vocabulary lacks")
    assert ": 2 b g i u z; finetune.tokenizer=extend adds it" in message
    caplog.clear()
    begin_with(source, ["one two", "three"], FinetuneConfig(), CHARACTERS)
    assert not caplog.messages


def test_keeping_the_tokenizer_changes_nothing(source):
    assert begin_with(source, ["buzz"], FinetuneConfig(), CHARACTERS) is source


@pytest.mark.parametrize("kind", CLOSING)
def test_blocks_that_are_added_pass_their_input_on_and_learn(kind):
    torch.manual_seed(0)
    source = Recognizer(small_config(layers=3, kind=kind), train_tokenizer(["one two three"], CHARACTERS))
    deeper = deepen(source, 2)
    assert deeper.config.encoder.layers == len(deeper.encoder.blocks) == 5
    waveform, lengths = waveforms("6848-252323-0001")
    with torch.no_grad():
        before, after = (model.eval().encode(waveform, lengths)[0] for model in (source, deeper))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    deeper.train().encode(waveform, lengths)[0].square().sum().backward()
    for place, block in enumerate(deeper.encoder.blocks):
        closing = {name: w for name, w in block.named_parameters() if name.startswith(CLOSING[kind])}
        assert all(w.grad is not None and w.grad.any() for w in closing.values()), place
        assert any(w.any() for w in closing.values()) == (place not in (2, 4)), place  # after the second and the third
    with pytest.raises(ConfigError, match="at most the 3 blocks of the model, got 4"):
        deepen(source, 4)


def test_the_embedded_model_hears_much_the_same_with_twice_the_blocks():
    source, _ = checkpoint.load(EMBEDDED)
    deeper = deepen(source, len(source.encoder.blocks)).eval()
    waveform, lengths = waveforms("6848-252323-0001", "1737-146161-0009", "3947-13262-0005")
    with torch.no_grad():
        before, after = (m.ctc_log_probs(m.encode(waveform, lengths)[0]).argmax(-1) for m in (source.eval(), deeper))
    assert (before != after).float().mean() < 0.05


def test_freezing_by_name(source):
    restrict(source, FinetuneConfig(freeze=["encoder.subsampling.*", "encoder.blocks.0.*"]))
    for name, weight in source.named_parameters():
        frozen = name.startswith(("encoder.subsampling.", "encoder.blocks.0."))
        assert weight.requires_grad != frozen
    with pytest.raises(ConfigError, match=r"no weight is named like 'encoder\.layers"):
        restrict(source, FinetuneConfig(freeze=["encoder.layers.*"]))
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        restrict(source, FinetuneConfig(freeze=["*"]))


@pytest.mark.parametrize("choice", ["keep", "extend"])
def test_adapters_learn_alone_and_merge_into_the_same_outputs(source, choice):
    torch.manual_seed(1)
    plain = Recognizer(source.config, source.tokenizer).eval()
    restrict(source, FinetuneConfig(lora_rank=4, tokenizer=choice))
    rows = {"decoder.embedding.weight", "ctc_head.weight", "ctc_head.bias"} if choice == "extend" else set()
    for name, weight in source.named_parameters():
        assert weight.requires_grad == ("lora_" in name or name in rows), name
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    plain.load_state_dict(merged(source.state_dict()))
    waveform, lengths = torch.randn(1, 16_000), torch.tensor([16_000])
    with torch.no_grad():
        torch.testing.assert_close(
            plain.encode(waveform, lengths)[0], source.eval().encode(waveform, lengths)[0], atol=1e-5, rtol=1e-4
        )


def test_merging_a_plain_state_leaves_it_alone(source):
    state = source.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in merged(state).items())
    assert merged(state).keys() == state.keys()


STILL = ("training.epochs=1", "optimizer.learning_rate=1e-12", "training.average_decay=0", "data.batch_seconds=60")


def test_validation_gives_the_rate_of_evaluation_and_before_the_first_step_the_sources(eight, tmp_path, caplog):
    rate = evaluate(Transcriber(checkpoint.load(EMBEDDED)[0]), Manifest.load(eight))["wer"]
    tuned = train(composed("mini_librispeech", eight, tmp_path / "run", *STILL), init_from=EMBEDDED)
    assert f"before the first step: WER {100 * rate:.2f} %" in caplog.text
    described = checkpoint.describe(tuned)["about"]
    assert described["metrics"]["wer"] == pytest.approx(rate, abs=1e-6)
    assert described["began_with"] == "english.safetensors"
    original, _ = checkpoint.load(EMBEDDED)
    for name, weight in checkpoint.load(tuned)[0].state_dict().items():
        torch.testing.assert_close(weight, original.state_dict()[name], atol=1e-6, rtol=0)


def test_validation_searches_as_the_run_says(eight, tmp_path):
    search = ("decoding.mode=ctc_beam", "decoding.length_bonus=-5")
    config = composed("mini_librispeech", eight, tmp_path / "run", *STILL, *search)
    tuned = checkpoint.describe(train(config, init_from=EMBEDDED))["about"]["metrics"]["wer"]
    model = checkpoint.load(EMBEDDED)[0]
    assert tuned == pytest.approx(evaluate(Transcriber(model, config.decoding), Manifest.load(eight))["wer"], abs=1e-6)
    assert tuned != pytest.approx(evaluate(Transcriber(model), Manifest.load(eight))["wer"], abs=1e-3)


def test_a_run_that_makes_its_source_worse_says_so(eight, tmp_path, caplog):
    steps = ("training.epochs=1", "training.average_decay=0", "data.batch_seconds=20")  # fewer than the warm-up has
    config = composed("mini_librispeech", eight, tmp_path / "run", *steps, "optimizer.learning_rate=0.05")
    train(config, init_from=EMBEDDED)
    assert "more than the" in caplog.text
    caplog.clear()
    train(replace(config, training=replace(config.training, epochs=2)), resume=True)
    assert "more than the" in caplog.text
    assert [message for message in caplog.messages if "from here on" in message] == [
        "training.epochs is 2 from here on, it was 1"
    ]
    caplog.clear()
    train(composed("mini_librispeech", eight, tmp_path / "still", *STILL), init_from=EMBEDDED)
    assert "before the first step" in caplog.text
    assert "more than the" not in caplog.text


def test_a_new_domain_is_learnt_from_one_folder_of_recordings(eight, tmp_path):
    """The embedded model on eight recordings it has never heard, by the command of recipes/custom and of the docs."""
    before = evaluate(Transcriber(checkpoint.load(EMBEDDED)[0]), Manifest.load(eight))["wer"]
    config = composed(
        "custom",
        eight,
        tmp_path / "run",
        "optimizer.learning_rate=5e-4",
        "training.epochs=12",
        "training.validate_every=12",
    )
    after = evaluate(Transcriber(checkpoint.load(train(config, init_from=EMBEDDED))[0]), Manifest.load(eight))["wer"]
    assert after < 0.6 * before


def test_a_run_with_adapters_saves_a_plain_model_and_resumes(eight, tmp_path):
    source = train(composed("mini_librispeech", eight, tmp_path / "first", *TINY, "training.epochs=1"))
    steps = (*TINY, "finetune.lora_rank=2", "optimizer.learning_rate=0.01")
    config = composed("mini_librispeech", eight, tmp_path / "second", *steps, "training.epochs=1")
    train(config, init_from=source)
    forgotten = replace(config, training=replace(config.training, epochs=3), finetune=FinetuneConfig())
    tuned = train(forgotten, resume=True)
    for run, short_first in (("first", True), ("second", False)):  # who aligns already is not led from short to long
        assert yaml.safe_load((tmp_path / run / "config.yaml").read_text())["data"]["short_first"] is short_first
    original, _ = checkpoint.load(source)
    model, _ = checkpoint.load(tuned)
    begun = original.state_dict()
    moved = [name for name, weight in model.state_dict().items() if (weight - begun[name]).abs().max() > 1e-5]
    assert moved
    assert all(".blocks." in name and name.endswith("weight") for name in moved), moved
