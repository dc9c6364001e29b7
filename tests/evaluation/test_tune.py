from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from asr.decoding import DecodingOptions
from asr.errors import ConfigError
from asr.evaluation import tune as room
from asr.evaluation.tune import Trial, grid, most_trials, tune


@pytest.fixture
def rated(monkeypatch):
    """Rates that stand in for decoding: a valley over the weights, lowest at a point that each test chooses."""
    tried = []

    def at(lowest):
        def rate(model, manifest, encoded, options, normalizer):
            tried.append(options)
            wer = sum(abs(getattr(options, name) - value) for name, value in lowest.items())
            return Trial(options, wer, 0.0)

        monkeypatch.setattr(room, "_try", rate)
        monkeypatch.setattr(room, "_encode", lambda model, manifest: [])
        return tried

    return at


START = DecodingOptions(mode="rescoring", language_model="lm", lm_weight=0.45, length_bonus=1.0, ctc_weight=0.5)


@pytest.mark.parametrize("steps", list(itertools.product((-2, 0, 3), (-1, 0, 2), (-1, 0, 1))))
def test_the_lowest_place_of_a_valley_is_found_from_either_side(steps, rated):
    values = grid(START)
    lowest = {
        name: values[name][values[name].index(getattr(START, name)) + step]
        for name, step in zip(("lm_weight", "length_bonus", "ctc_weight"), steps, strict=True)
    }
    tried = rated(lowest)
    done = []
    trials = tune(None, None, START, progress=done.append)  # type: ignore[arg-type] (they are what was replaced)
    assert trials[0].options == replace(START, **lowest)
    assert trials[0].wer == 0
    assert [trial.wer for trial in trials] == sorted(trial.wer for trial in trials)
    assert len(set(tried)) == len(tried) == len(trials) == len(done) <= most_trials(START)


@pytest.mark.parametrize(
    ("mode", "lm", "names"),
    [
        ("ctc_beam", "", {"length_bonus"}),
        ("ctc_beam", "lm", {"lm_weight", "length_bonus"}),
        ("attention", "", {"length_bonus"}),
        ("joint", "", {"ctc_weight", "length_bonus"}),
        ("ctc", "lm", {"lm_weight", "length_bonus"}),
    ],
)
def test_only_what_counts_in_a_mode_is_tried(mode, lm, names):
    assert grid(DecodingOptions(mode=mode, language_model=lm)).keys() == names


def test_the_best_path_has_nothing_to_tune():
    with pytest.raises(ConfigError, match="no weights to tune"):
        grid(DecodingOptions(mode="ctc"))
