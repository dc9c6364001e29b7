"""Recipes: corpora to manifests.

A recipe is a file `recipes/<corpus>/prepare.py` with

    SPLITS      the manifests it can make, train first
    LAYOUT      what `--source` must hold, for messages
    read        source folder -> Corpus
    download    folder -> source folder; or OBTAIN, which says how to get what must not or cannot be downloaded
    is_dev      utterance -> bool, optional: what is held out of train where the corpus has no dev split
    TOLERANCE   optional: largest share of utterances that may be unusable; default 1 %

Everything else is here, once: packed corpora, holding out, faults, and writing; `asr.stages` goes on from there.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from asr.config import resource, suggest
from asr.corpora import Corpus, hold_out, measure
from asr.download import say
from asr.errors import ConfigError, DataError
from asr.manifest import Utterance, read_packed, write_manifest

_PACKED_SPLITS = ("train", "dev", "test")
_TOLERANCE = 0.01


def corpora() -> list[str]:
    """Name the corpora that have a recipe."""
    return sorted(path.parent.name for path in resource("recipes").glob("*/prepare.py"))


def load(corpus: str) -> ModuleType:
    """Load a recipe.

    Args:
        corpus: one of `corpora()`.

    Raises:
        ConfigError: no recipe of that name.
    """
    known = corpora()
    if corpus not in known:
        raise ConfigError(f"no recipe {corpus!r}{suggest(corpus, known)} (all recipes: {', '.join(known)})")
    path = resource("recipes") / corpus / "prepare.py"
    spec = importlib.util.spec_from_file_location(corpus, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_prepare(corpus: str, source: Path | None, output: Path) -> list[Path]:
    """Turn a corpus into manifests, downloading it if need be.

    Args:
        corpus: one of `corpora()`.
        source: where the corpus already lies, as published or with a packed `manifest.jsonl`; None downloads it
            below `output`.
        output: folder for the manifests; what is there already is left alone.

    Returns:
        The manifests, for example train.jsonl, dev.jsonl, test.jsonl.

    Raises:
        ConfigError: no recipe of that name.
        DataError: the corpus is not what the recipe expects, or a download failed.
    """
    return prepare(load(corpus), source, output)


def prepare(recipe: ModuleType, source: Path | None, output: Path) -> list[Path]:
    """Do the work of `run_prepare` with a loaded recipe."""
    if source is not None and not source.exists():
        raise DataError(f"{source}: no such folder; --source says where the corpus lies")
    if (output / "train.jsonl").is_file():
        say(f"{output}: already prepared; delete the manifests to start again")
        return written(recipe, output)
    if source is None:
        if not hasattr(recipe, "download"):
            raise DataError(f"{recipe.__name__}: {recipe.OBTAIN}")
        source = recipe.download(output / "download")
    assert source is not None
    corpus = _read(recipe, source.absolute())
    splits = {name: utterances for name, utterances in corpus.splits.items() if utterances}
    if not splits.get("train"):
        raise DataError(f"{source}: holds no {recipe.__name__} to train on; give {recipe.LAYOUT}")
    if not splits.get("dev"):
        splits["train"], splits["dev"] = _hold_out(recipe, source, splits["train"])
    output.mkdir(parents=True, exist_ok=True)
    for name in sorted(splits, key=lambda name: name == "train"):  # train last: it says that all is done
        write_manifest(output / f"{name}.jsonl", splits[name])
    return written(recipe, output)


def written(recipe: ModuleType, output: Path) -> list[Path]:
    """List the manifests of a recipe that are there."""
    names = dict.fromkeys([*recipe.SPLITS, *_PACKED_SPLITS])
    return [path for name in names if (path := output / f"{name}.jsonl").is_file()]


def _read(recipe: ModuleType, source: Path) -> Corpus:
    """Read a corpus, packed or as published, and leave out what cannot be used.

    Raises:
        DataError: it is too much for the corpus to be whole.
    """
    corpus = _read_packed(source) if (source / "manifest.jsonl").is_file() else recipe.read(source)
    whole = len(corpus.faults) + sum(map(len, corpus.splits.values()))
    for name, utterances in corpus.splits.items():
        corpus.splits[name] = measure(utterances, corpus.faults)
    if len(corpus.faults) > getattr(recipe, "TOLERANCE", _TOLERANCE) * whole:
        count = f"{len(corpus.faults)} of {whole} audio files"
        raise DataError(
            f"{source}: {count} cannot be used, the first: {corpus.faults[0]}; bring the rest, or cut the lists"
        )
    if corpus.faults:
        shown = [*corpus.faults[:5], *([f"... and {len(corpus.faults) - 5} more"] if len(corpus.faults) > 5 else [])]
        say(f"{len(corpus.faults)} not used:\n  " + "\n  ".join(shown))
    return corpus


def _read_packed(source: Path) -> Corpus:
    corpus = Corpus(read_packed(source))
    if odd := corpus.splits.keys() - _PACKED_SPLITS:
        raise DataError(f"{source}/manifest.jsonl: splits must be train, dev or test, not {', '.join(sorted(odd))}")
    for name, utterances in corpus.splits.items():
        corpus.splits[name] = [utterance for utterance in utterances if _usable(utterance, corpus.faults)]
    return corpus


def _usable(utterance: Utterance, faults: list[str]) -> bool:
    if not Path(utterance.audio_filepath).is_file():
        faults.append(f"{utterance.audio_filepath}: text without audio")
    elif not utterance.text.strip():
        faults.append(f"{utterance.audio_filepath}: audio without text")
    else:
        return True
    return False


def _hold_out(recipe: ModuleType, source: Path, utterances: list[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Split train in two, by the recipe's rule if that finds anything, else by a hash."""
    if len(utterances) < 2:
        raise DataError(f"{source}: too few utterances with audio and text to hold any out for dev")
    is_dev = getattr(recipe, "is_dev", lambda _: False)
    dev = [utterance for utterance in utterances if is_dev(utterance)]
    train = [utterance for utterance in utterances if not is_dev(utterance)]
    return (train, dev) if train and dev else hold_out(utterances)
