from __future__ import annotations

import gzip
import itertools
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from decoding.oracles import text_probabilities, tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from asr.decoding import DecodingOptions, decode
from asr.decoding.arpa import read_arpa, read_sentences, write_arpa
from asr.decoding.ctc_beam import search_prefixes
from asr.decoding.fusion import Fusion
from asr.decoding.hotwords import HotwordTrie
from asr.decoding.kneser_ney import estimate
from asr.decoding.language_model_file import load_language_model
from asr.decoding.ngram import NGramLanguageModel
from asr.decoding.ngram_file import write_ngrams
from asr.errors import ConfigError, DataError
from asr.model.language_model import LanguageModelConfig, NeuralLanguageModel
from asr.tokenizer import BLANK, END, START, TokenizerConfig, extend_tokenizer, train_tokenizer

TEXTS = [
    "the cat sat on the mat",
    "a dog sat on the log",
    "the dog ate the cat",
    "on and on the log sat",
    "a cat and a dog",
]
TOKENIZER = train_tokenizer(TEXTS, TokenizerConfig(kind="char"))
V = len(TOKENIZER)
ENCODED = [TOKENIZER.encode(text) for text in TEXTS]
CPU = torch.device("cpu")


def textbook(texts, order):
    """Interpolated modified Kneser-Ney as Chen and Goodman write it, by dictionaries and recursion."""
    sentences = [(START, *text, END) for text in texts]
    raw = [Counter(s[i : i + n] for s in sentences for i in range(len(s) - n + 1)) for n in range(order + 1)]
    counts = {order: dict(raw[order])}
    for n in range(1, order):
        before = Counter(gram[1:] for gram in raw[n + 1])
        counts[n] = {gram: raw[n][gram] if gram[0] == START else before[gram] for gram in raw[n]}
    counts[1] = {gram: count for gram, count in counts[1].items() if gram != (START,)}
    discounts = {}
    for n in range(1, order + 1):
        n1, n2, n3, n4 = (sum(c == k for c in counts[n].values()) for k in (1, 2, 3, 4))
        discounts[n] = (0, 0.5, 1.0, 1.5)
        if min(n1, n2, n3, n4):
            y = n1 / (n1 + 2 * n2)
            found = (0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
            if all(0 < d < k for k, d in enumerate(found) if k):
                discounts[n] = found

    def probability(context, token):
        n = len(context) + 1
        lower = 1 / (V - 2) if n == 1 else probability(context[1:], token)
        following = {gram: count for gram, count in counts[n].items() if gram[:-1] == context}
        if not following:
            return lower
        total = sum(following.values())
        spared = sum(discounts[n][min(count, 3)] for count in following.values())
        own = following.get((*context, token), 0)
        return (own - discounts[n][min(own, 3)]) / total + spared / total * lower

    return probability


def model(order=3, cutoff=0):
    return NGramLanguageModel(estimate(ENCODED, order, V, cutoff), V)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_the_estimate_is_the_textbooks(order):
    probability = textbook(ENCODED, order)
    lm = model(order)
    for text in [*ENCODED[:2], TOKENIZER.encode("cat dog the")]:
        log_probs, state = lm.start(1, CPU)
        written = (START,)
        for token in [*text, None]:
            context = written[max(0, len(written) - order + 1) :]
            expected = [probability(context, other) for other in range(V) if other not in (BLANK, START)]
            found = [math.exp(log_probs[0, other]) for other in range(V) if other not in (BLANK, START)]
            assert found == pytest.approx(expected, rel=1e-4)
            if token is not None:
                log_probs, state = lm.step(torch.tensor([token]), state)
                written = (*written, token)


@example(texts=[[4]], order=5, cutoff=0, pruning=0.0, walk=[])  # shorter than the order
@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(4, 8), min_size=1, max_size=9), min_size=1, max_size=8),
    order=st.integers(2, 5),
    cutoff=st.integers(0, 2),
    pruning=st.sampled_from([0.0, 1e-3, 0.1]),
    walk=st.lists(st.integers(1, 8).filter(lambda token: token not in (START, END)), max_size=8),
)
def test_probabilities_sum_to_one_after_any_text(texts, order, cutoff, pruning, walk):
    lm = NGramLanguageModel(estimate(texts, order, 9, cutoff, pruning), 9)
    log_probs, state = lm.start(1, CPU)
    for token in walk:
        assert float(log_probs.exp().sum()) == pytest.approx(1, abs=1e-5)
        log_probs, state = lm.step(torch.tensor([token]), state)
    assert float(log_probs.exp().sum()) == pytest.approx(1, abs=1e-5)


def conditional(grams, context):
    """Distribution after one token by a model of order 2, shape (V,)."""
    lm = NGramLanguageModel(grams, V)
    log_probs, state = lm.start(1, CPU)
    if context == START:
        return log_probs[0].double().exp().numpy()
    return lm.step(torch.tensor([context]), state)[0][0].double().exp().numpy()


def test_pruning_leaves_out_exactly_what_changes_the_perplexity_too_little():
    threshold = 2e-3
    full, pruned = estimate(ENCODED, 2, V), estimate(ENCODED, 2, V, pruning=threshold)
    stream = Counter(token for text in ENCODED for token in (START, *text, END))
    unigrams = np.zeros(V)
    unigrams[full[0].tokens] = np.exp(full[0].log_probs)
    kept = set(zip(pruned[0].tokens[pruned[1].contexts], pruned[1].tokens, strict=True))
    bigrams = list(zip(full[0].tokens[full[1].contexts], full[1].tokens, strict=True))
    worth = {}
    for context, token in bigrams:
        before = conditional(full, int(context))
        others = [end for begin, end in bigrams if begin == context and end != token]
        after = unigrams * (1 - before[others].sum()) / (1 - unigrams[others].sum())
        after[others] = before[others]
        seen = [other for other in range(V) if before[other] > 1e-12]
        divergence = (before[seen] * np.log(before[seen] / after[seen])).sum() * stream[context] / stream.total()
        worth[context, token] = math.expm1(divergence)
    assert kept == {bigram for bigram, change in worth.items() if change >= threshold}
    assert 0 < len(kept) < len(bigrams)


def test_pruning_keeps_the_beginnings_of_what_it_keeps_and_costs_little():
    full, pruned = estimate(ENCODED, 4, V), estimate(ENCODED, 4, V, pruning=5e-3)
    assert sum(len(grams.tokens) for grams in pruned) < 0.7 * sum(len(grams.tokens) for grams in full)
    assert perplexity(NGramLanguageModel(pruned, V)) < 1.6 * perplexity(NGramLanguageModel(full, V))
    more = estimate(ENCODED, 4, V, pruning=5e-2)
    assert sum(len(grams.tokens) for grams in more) < sum(len(grams.tokens) for grams in pruned)


def perplexity(lm):
    total, count = 0.0, 0
    for text in ENCODED:
        log_probs, state = lm.start(1, CPU)
        for token in (*text, END):
            total, count = total + float(log_probs[0, token]), count + 1
            log_probs, state = lm.step(torch.tensor([token]), state)
    return math.exp(-total / count)


def test_a_compact_file_holds_the_model_and_maps_tokens_by_their_names(tmp_path):
    orders = estimate(ENCODED, 4, V, 0, 1e-4)
    for name in ("a.safetensors", "b.safetensors"):
        write_ngrams(tmp_path / name, orders, TOKENIZER, {"texts": ["x"]})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    other = train_tokenizer(["zzzzzzyyyyyyuuuuummmmm nnn", *TEXTS], TokenizerConfig(kind="char"))
    assert [other.piece(token) for token in range(V)] != [TOKENIZER.piece(token) for token in range(V)]
    expected = NGramLanguageModel(orders, V)
    for tokenizer in (TOKENIZER, other):
        lm = load_language_model(str(tmp_path / "a.safetensors"), tokenizer)
        for text in ("the cat sat", "on a mat", "dog dog"):
            one, one_state = expected.start(1, CPU)
            two, two_state = lm.start(1, CPU)
            pairs = zip(TOKENIZER.encode(text), tokenizer.encode(text), strict=True)
            for ours, theirs in pairs:
                assert float(two[0, theirs]) == pytest.approx(float(one[0, ours]), abs=0.05)  # one of 256 values
                one, one_state = expected.step(torch.tensor([ours]), one_state)
                two, two_state = lm.step(torch.tensor([theirs]), two_state)
            assert float(two[0, END]) == pytest.approx(float(one[0, END]), abs=0.05)


def wrapping(children):
    """Counts with the same sum, modulo 2**64."""
    large = children.astype(np.int64)
    large[:4] += 2**62
    return large


def test_compact_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "lm.safetensors"
    write_ngrams(path, estimate(ENCODED, 3, V), TOKENIZER, {})
    with pytest.raises(ConfigError, match="no tokens of this model"):
        load_language_model(str(path), train_tokenizer(["xyz"], TokenizerConfig(kind="char")))
    good = load_file(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    changes = [
        {"children.2": good["children.2"] + 1},
        {"children.3": good["children.3"][:-1]},
        {"children.2": wrapping(good["children.2"])},
        {"tokens.3": good["tokens.3"][::-1].copy()},
        {"tokens.1": good["tokens.1"] + 200},
        {"log_probs.2": good["log_probs.2"][:-1]},
        {"log_prob_values.3": good["log_prob_values.3"][:1]},
        {"backoff_values.2": good["backoff_values.2"] * np.nan},
    ]
    for change in changes:
        save_file(good | change, path, metadata)
        with pytest.raises(ConfigError, match="damaged"):
            load_language_model(str(path), TOKENIZER)
    save_file({"x": np.zeros(1)}, path, metadata)
    with pytest.raises(ConfigError, match="it has no n-grams"):
        load_language_model(str(path), TOKENIZER)
    save_file(good, path, {"asr-ngram-1": "[" * 100_000})
    with pytest.raises(ConfigError, match="damaged"):
        load_language_model(str(path), TOKENIZER)
    save_file(good, path, {"format": "asr-1"})
    with pytest.raises(ConfigError, match="no n-gram model"):
        load_language_model(str(path), TOKENIZER)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ConfigError, match=r"lm\.safetensors.*damaged"):
        load_language_model(str(path), TOKENIZER)


def test_kenlm_reads_the_same_numbers_from_the_file(tmp_path):
    library = pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    from flashlight.lib.text.dictionary import Dictionary  # pyright: ignore[reportMissingImports]

    write_arpa(tmp_path / "lm.arpa", estimate(ENCODED, 4, V, 1), TOKENIZER)
    names = Dictionary([TOKENIZER.piece(token) for token in range(V)])
    kenlm = library.KenLM(str(tmp_path / "lm.arpa"), names)
    ours = NGramLanguageModel(read_arpa(tmp_path / "lm.arpa", TOKENIZER), V)
    theirs = kenlm.start(False)
    log_probs, state = ours.start(1, CPU)
    for token in TOKENIZER.encode("the frog sat on a cat and ate it"):
        theirs, score = kenlm.score(theirs, token)
        assert float(log_probs[0, token]) == pytest.approx(score * math.log(10), abs=1e-4)
        log_probs, state = ours.step(torch.tensor([token]), state)
    assert float(log_probs[0, END]) == pytest.approx(kenlm.finish(theirs)[1] * math.log(10), abs=1e-4)


def test_a_file_holds_what_was_written_and_the_same_bytes_each_time(tmp_path):
    orders = estimate(ENCODED, 3, V)
    for name in ("a.arpa", "b.arpa.gz", "c.arpa.gz"):
        write_arpa(tmp_path / name, orders, TOKENIZER)
    assert (tmp_path / "b.arpa.gz").read_bytes() == (tmp_path / "c.arpa.gz").read_bytes()
    assert gzip.decompress((tmp_path / "b.arpa.gz").read_bytes()) == (tmp_path / "a.arpa").read_bytes()
    for one, other in zip(orders, read_arpa(tmp_path / "b.arpa.gz", TOKENIZER), strict=True):
        np.testing.assert_array_equal(one.contexts, other.contexts)
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
        np.testing.assert_allclose(one.backoffs, other.backoffs, atol=1e-5)


def test_spaces_that_are_not_blanks_are_tokens_of_a_file(tmp_path):
    tokenizer = train_tokenizer(["un deux\u00a0! oui"], TokenizerConfig(kind="char", normalizer="none"))
    orders = estimate([tokenizer.encode("deux\u00a0! oui")], 3, len(tokenizer))
    write_arpa(tmp_path / "lm.arpa", orders, tokenizer)
    back = read_arpa(tmp_path / "lm.arpa", tokenizer)
    assert [list(grams.tokens) for grams in back] == [list(grams.tokens) for grams in orders]


def test_kenlms_start_of_a_sentence_is_never_likely(tmp_path):
    orders = estimate(ENCODED, 3, V)
    write_arpa(tmp_path / "lm.arpa", orders, TOKENIZER)
    text = (tmp_path / "lm.arpa").read_text()
    (tmp_path / "lm.arpa").write_text(re.sub(r"(?m)^\S+\t<s>\t", "0\t<s>\t", text, count=1))
    lm = NGramLanguageModel(read_arpa(tmp_path / "lm.arpa", TOKENIZER), V)
    for first in (None, *TOKENIZER.encode("cat")):
        log_probs, state = lm.start(1, CPU)
        if first is not None:
            log_probs, _ = lm.step(torch.tensor([first]), state)
        assert float(log_probs.exp().sum()) == pytest.approx(1.0, abs=1e-4)


def test_a_file_without_backoff_weights_is_read(tmp_path):
    (tmp_path / "lm.arpa").write_text(
        "\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1 <unk>\n-99 <s> -0.5\n-0.6\t</s>\n-0.3 a\n\n"
        "\\2-grams:\n-0.2 <s> a\n\n\\end\\\n"
    )
    lm = NGramLanguageModel(read_arpa(tmp_path / "lm.arpa", TOKENIZER), V)
    log_probs, state = lm.start(1, CPU)
    a = TOKENIZER.encode("a")[-1]
    assert float(log_probs[0, a]) == pytest.approx(-0.2 * math.log(10))
    assert float(log_probs[0, END]) == pytest.approx(-1.1 * math.log(10))
    log_probs, _ = lm.step(torch.tensor([a]), state)
    assert float(log_probs[0, END]) == pytest.approx(-0.6 * math.log(10))


def test_files_that_change_are_read_anew(tmp_path):
    path, options = tmp_path / "words.txt", DecodingOptions(mode="ctc_beam", hotwords=str(tmp_path / "words.txt"))
    for words in (["the cat"], ["a log", "the dog"]):
        path.write_text("\n".join(words))
        found = Fusion.of(options, TOKENIZER).hotwords
        assert [TOKENIZER.decode(word) for word in found.words] == words
    path.unlink()
    with pytest.raises(ConfigError, match="no such file of hotwords"):
        Fusion.of(options, TOKENIZER)
    lm = tmp_path / "lm.safetensors"
    for order in (2, 3):
        write_ngrams(lm, estimate(ENCODED, order, V), TOKENIZER, {})
        assert load_language_model(str(lm), TOKENIZER)._order == order
    assert load_language_model(str(lm), TOKENIZER) is load_language_model(str(lm), TOKENIZER)


def test_letters_that_a_language_model_lacks_are_named(tmp_path, caplog):
    write_ngrams(tmp_path / "lm.safetensors", estimate(ENCODED, 2, V), TOKENIZER, {})
    load_language_model(str(tmp_path / "lm.safetensors"), TOKENIZER)
    assert not caplog.records
    larger = extend_tokenizer(TOKENIZER, ["für 5"])
    load_language_model(str(tmp_path / "lm.safetensors"), larger)
    assert "4 tokens of the model are not in it" in caplog.text
    assert all(letter in caplog.text for letter in "fü5")


def test_rows_stand_still_and_are_reordered():
    lm = model()
    first, state = lm.start(3, CPU)
    tokens = ENCODED[0]
    log_probs, state = lm.step(torch.tensor([tokens[0], BLANK, tokens[0]]), state)
    torch.testing.assert_close(log_probs[1], first[1])
    log_probs, state = lm.step(torch.tensor([tokens[1], BLANK, BLANK]), state)
    state = lm.select(torch.tensor([2, 0, 1]), state)
    log_probs, _ = lm.step(torch.tensor([tokens[1], BLANK, tokens[0]]), state)
    torch.testing.assert_close(log_probs[0], log_probs[1])
    torch.testing.assert_close(log_probs[2], lm.step(torch.tensor([tokens[0]]), lm.start(1, CPU)[1])[0][0])


def test_a_search_that_may_keep_few_answers_gets_the_same(monkeypatch):
    lm = model()
    stream = [torch.tensor(pair) for pair in zip(ENCODED[0], ENCODED[1], strict=False)]

    def walk():
        log_probs, state = lm.start(2, CPU)
        answers = [log_probs]
        for tokens in stream:
            log_probs, state = lm.step(tokens, lm.select(torch.tensor([1, 0]), state))
            answers.append(log_probs)
        return torch.stack(answers)

    many = walk()
    monkeypatch.setattr("asr.decoding.ngram.MOST_SCORES", 0)
    torch.testing.assert_close(walk(), many, rtol=0, atol=0)


def neural(vocabulary):
    torch.manual_seed(3)
    return NeuralLanguageModel(vocabulary, LanguageModelConfig(layers=2, dim=16, heads=2, feed_forward=32)).eval()


WORDS = [((4, 5), 2.0), ((4, 5, 5), 3.0)]


@pytest.mark.parametrize(
    "kind, order, frames, words",
    [("n-gram", 3, 4, []), ("neural", 3, 4, []), ("n-gram", 2, 5, WORDS), ("neural", 2, 5, WORDS)],
)
def test_fusion_in_an_endless_ctc_beam_equals_exhaustive_search(kind, order, frames, words):
    torch.manual_seed(0)
    log_probs = (2 * torch.randn(1, frames, 6)).log_softmax(-1)
    lm = neural(6) if kind == "neural" else NGramLanguageModel(estimate([[4, 5, 4], [4, 4, 5], [5, 4]], order, 6), 6)
    options = DecodingOptions(mode="ctc_beam", beam_size=5000, lm_weight=0.7, length_bonus=0.4)
    trie = HotwordTrie([words], torch.arange(6) == 4)
    fusion = Fusion(lm, 0.7, heard=trie if words else None, length_bonus=0.4)
    (found,) = search_prefixes(log_probs, torch.tensor([frames]), options, fusion)
    oracle = {text: p for text, p in text_probabilities(log_probs[0]).items() if set(text) <= {1, 4, 5}}
    ours = {hypothesis.tokens: hypothesis for hypothesis in found}
    true = {}
    for text, probability in oracle.items():
        row, state = lm.start(1, CPU)
        total, bonus, node = 0.0, 0.4 * len(text), 0
        for token in (*text, END):
            total += float(row[0, token])
            row, state = lm.step(torch.tensor([token]), state)
            bonus += float(trie.bonus[node, token])
            node = int(trie.following[node, token])
        true[text] = math.log(probability) + 0.7 * total + bonus
        if text in ours or not words:  # of texts that bigrams hardly tell apart some are never put back
            assert ours[text].lm == pytest.approx(total, abs=1e-4)
            assert ours[text].bonus == pytest.approx(bonus, abs=1e-4)
            assert ours[text].score == pytest.approx(true[text], abs=1e-4)
    assert found[0].tokens == max(true, key=true.__getitem__)
    scores = [hypothesis.score for hypothesis in found]
    assert all(one >= other for one, other in itertools.pairwise(scores))


@pytest.mark.parametrize("mode", ["ctc_beam", "attention", "joint", "rescoring"])
def test_a_neural_model_takes_part_in_every_mode_and_batched_is_as_alone(mode):
    recognizer = tiny(4)
    lm = neural(len(recognizer.tokenizer))
    encoder_out, lengths = torch.randn(3, 9, 16), torch.tensor([9, 6, 4])
    options = DecodingOptions(mode=mode, beam_size=4, lm_weight=0.8)
    fusion = Fusion.of(options, recognizer.tokenizer, lm)
    together = decode(recognizer, encoder_out, lengths, options, fusion)
    deaf = replace(options, lm_weight=0.0)
    without = decode(recognizer, encoder_out, lengths, deaf, Fusion.of(deaf, recognizer.tokenizer, lm))
    if mode != "attention":  # whose decoder, untrained, ends at once
        assert [found[0].tokens for found in together] != [found[0].tokens for found in without]
    for row, (best, *_) in enumerate(together):
        encoded = encoder_out[row : row + 1, : int(lengths[row])], lengths[row : row + 1]
        ((alone, *_),) = decode(recognizer, *encoded, options, fusion)
        assert alone.tokens == best.tokens
        assert alone.score == pytest.approx(best.score, abs=1e-4)
        inputs = torch.tensor([[START, *best.tokens]])
        with torch.no_grad():
            whole = lm(inputs)[0].gather(1, torch.tensor([[*best.tokens, END]]).T).sum()
        if best.fallback is None:
            assert best.lm == pytest.approx(float(whole), abs=1e-4)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"hello\n", "not an ARPA file"),
        (b"\\data\\\nngram 1=2\n\n\\1-grams:\n-1 <unk>\n", "damaged"),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\n-1 zebra\n", "'zebra' is no token of this model"),
        (b"\\data\\\nngram 1=x\n\n", "damaged"),
        (b"\\data\\\nngram 1\n\n", "damaged"),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\nnan <unk>\n\n\\end\\\n", "weights that are no numbers"),
        (b"\xff\xfe\x00", "damaged"),
        (b"\\data\\\nngram 1=1" + b"0" * 70_000, "a line of 65536 characters or more"),
        (b"\\data\\\nngram 1=1000000000\n\n\\1-grams:\n", "1000000000 words, more than the"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "lm.arpa"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_arpa(path, TOKENIZER)
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"lm\.arpa\.gz"):
        read_arpa(path, TOKENIZER)


def test_sentences_come_from_text_and_manifests(tmp_path):
    (tmp_path / "a.txt").write_text("one two\n\nthree\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "four"}\n'))
    assert list(read_sentences(tmp_path / "a.txt")) == ["one two", "three"]
    assert list(read_sentences(tmp_path / "b.jsonl.gz")) == ["four"]
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n{"words": "x"}\n')
    with pytest.raises(DataError, match="line 2"):
        list(read_sentences(tmp_path / "c.jsonl"))
    (tmp_path / "d.jsonl").write_text('{"text": null}\n')
    with pytest.raises(DataError, match=r"d\.jsonl: line 1 is no utterance"):
        list(read_sentences(tmp_path / "d.jsonl"))
    with pytest.raises(DataError, match="gone"):
        list(read_sentences(tmp_path / "gone.txt"))
    with pytest.raises(DataError, match="no text"):
        estimate([], 3, V)


def test_texts_with_the_same_future_are_scored_alike_whatever_follows():
    lm = model(order=3)
    letters = [token for token in range(V) if token not in (BLANK, START, END)][:5]
    texts = torch.tensor(list(itertools.product(letters, repeat=4)))
    log_probs, state = lm.start(len(texts), CPU)
    for tokens in texts.T:
        log_probs, state = lm.step(tokens, state)
    futures = lm.futures(state)
    kinds, first, kind = np.unique(futures, return_index=True, return_inverse=True)
    assert 1 < len(kinds) < len(texts) / 4
    for tokens in torch.tensor(letters).repeat(2)[:, None].expand(-1, len(texts)):
        assert torch.equal(log_probs, log_probs[first[kind]])
        log_probs, state = lm.step(tokens, state)
    assert NeuralLanguageModel(V, LanguageModelConfig(layers=1, dim=16, heads=2)).futures(state) is None


class TellsAnyApart(NGramLanguageModel):
    """Scores as it did, but hides what it has forgotten."""

    def futures(self, state):
        return None


def test_a_small_beam_finds_more_of_the_best_texts_if_it_keeps_those_apart_that_the_future_does():
    orders, lengths, options = estimate(ENCODED, 2, V), torch.tensor([14]), DecodingOptions(mode="ctc_beam")
    counted = {"whole": 0, "recombined": 0, "best, whole": 0, "best, recombined": 0}
    for seed in range(30):
        torch.manual_seed(seed)
        log_probs = (3 * torch.randn(1, 14, V)).log_softmax(-1)

        def search(kind, beam, log_probs=log_probs):
            settings = replace(options, beam_size=beam, lm_weight=0.5)
            return search_prefixes(log_probs, lengths, settings, Fusion(kind(orders, V), 0.5), 8)[0]

        wanted = [text.tokens for text in search(TellsAnyApart, 1000)]
        for name, kind in (("whole", TellsAnyApart), ("recombined", NGramLanguageModel)):
            found = search(kind, 8)
            assert len({text.tokens for text in found}) == len(found) == 8
            counted[name] += len({text.tokens for text in found} & set(wanted))
            counted["best, " + name] += found[0].tokens == wanted[0]
            for text in found:
                targets, count = torch.tensor([text.tokens]), torch.tensor([len(text.tokens)])
                exact = -torch.nn.functional.ctc_loss(log_probs[0, :, None], targets, lengths, count, reduction="sum")
                assert text.ctc <= float(exact) + 1e-3
                assert name == "whole" or text.ctc >= float(exact) - 1e-3  # summed anew for what was put back
                assert text.lm == pytest.approx(spelled(kind(orders, V), text.tokens), abs=1e-4)
    assert counted["recombined"] > 1.3 * counted["whole"], counted
    assert counted["best, recombined"] > counted["best, whole"], counted


def spelled(lm, tokens):
    """Add up what the model says of each token and the end."""
    log_probs, state = lm.start(1, CPU)
    total = 0.0
    for token in (*tokens, END):
        total += float(log_probs[0, token])
        log_probs, state = lm.step(torch.tensor([token]), state)
    return total
