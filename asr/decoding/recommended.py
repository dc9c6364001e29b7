"""The searches that a checkpoint recommends, and how what a user says goes on top of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asr.config import build
from asr.decoding.options import DecodingOptions
from asr.errors import CheckpointError, ConfigError

# The language model that goes by the name `embedded`.
EMBEDDED_LM = Path(__file__).parents[1] / "pretrained" / "english_lm.safetensors"
_DEFAULTS = asdict(DecodingOptions())
MOST_RECOMMENDED = 300  # hypotheses side by side: a larger beam is for its user to ask for, not for a stranger's file


def search_options(
    about: Mapping[str, Any], mode: str | Mapping[str, Any] | DecodingOptions | None, path: Path
) -> DecodingOptions:
    """Put the wanted settings on top of those that the checkpoint recommends for their mode.

    Args:
        about: what the checkpoint says of itself; its `search` is a list of settings, the default's first.
        mode: a mode, or some settings by name; whole options are taken as they are.
        path: the checkpoint, for messages.

    Raises:
        CheckpointError: what it recommends is no search, names files, or would fill the memory.
        ConfigError: a setting is unknown, wrong, or would change nothing.
    """
    if isinstance(mode, DecodingOptions):
        return replace(mode, language_model=str(EMBEDDED_LM)) if mode.language_model == "embedded" else mode
    if not isinstance(mode, str | Mapping | None):
        raise ConfigError(f"mode must be a name, DecodingOptions or a mapping, got {type(mode).__name__}")
    wanted = {"mode": mode} if isinstance(mode, str) else dict(mode or {})
    searches = about.get("search", [])
    searches = [searches] if isinstance(searches, dict) else searches
    if not isinstance(searches, list) or not all(isinstance(search, dict) for search in searches):
        raise CheckpointError(f"{path}: recommends a search that is no list of settings")
    default = DecodingOptions().mode
    fitting = (search for search in searches if wanted.get("mode") in (None, search.get("mode", default)))
    recommended = next(fitting, {})
    # A checkpoint is not to choose which files are read: it names no list of hotwords, and one language model only.
    if "hotwords" in recommended or recommended.get("language_model", "embedded") != "embedded":
        raise CheckpointError(f"{path}: recommends files to search with, which no checkpoint may")
    sizes = build(DecodingOptions, recommended, f"{path}: recommended search")
    if max(sizes.beam_size, sizes.nbest, sizes.candidates) > MOST_RECOMMENDED:
        raise CheckpointError(f"{path}: recommends a beam of more than {MOST_RECOMMENDED}, which no checkpoint may")
    search = recommended | wanted
    if search.get("language_model") == "embedded":
        search["language_model"] = str(EMBEDDED_LM)
    options = build(DecodingOptions, search, "search")
    if idle := [name for name in wanted if name in options.idle() and getattr(options, name) != _DEFAULTS[name]]:
        needs = {"lm_weight": "a language model", "hotword_bonus": "hotwords", "ctc_weight": "joint or rescoring"}
        needed = needs.get(idle[0], "another mode, such as ctc_beam")
        raise ConfigError(f"search: {idle[0]} does nothing in {options.mode} as it is: it needs {needed}")
    return options
