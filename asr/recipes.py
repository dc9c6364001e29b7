"""Recipes: corpora to manifests, and from there to a trained and measured model, in stages that can be repeated.

A recipe is a file `recipes/<corpus>/prepare.py` with

    SPLITS      the manifests it can make, train first
    LAYOUT      what `--source` must hold, for messages
    read        source folder -> Corpus
    download    folder -> source folder; or OBTAIN, which says how to get what must not or cannot be downloaded
    is_dev      utterance -> bool, optional: what is held out of train where the corpus has no dev split
    TOLERANCE   optional: largest share of utterances that may be unusable; default 1 %

Everything else is here, once: packed corpora, durations, holding out, faults, and writing.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from asr.audio import duration
from asr.config import resource, suggest
from asr.corpora import Corpus, hold_out
from asr.download import progress_bar, say
from asr.errors import AudioError, ConfigError, DataError
from asr.files import write_file
from asr.manifest import Utterance, read_packed, write_manifest

STAGES = ("prepare", "tokenizer", "train", "evaluate")
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
        return _written(recipe, output)
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
    return _written(recipe, output)


def _written(recipe: ModuleType, output: Path) -> list[Path]:
    names = dict.fromkeys([*recipe.SPLITS, *_PACKED_SPLITS])
    return [path for name in names if (path := output / f"{name}.jsonl").is_file()]


def _read(recipe: ModuleType, source: Path) -> Corpus:
    """Read a corpus, packed or as published, and leave out what cannot be used.

    Raises:
        DataError: it is too much for the corpus to be whole.
    """
    if (source / "manifest.jsonl").is_file():
        corpus = Corpus(read_packed(source))
        if odd := corpus.splits.keys() - _PACKED_SPLITS:
            raise DataError(f"{source}/manifest.jsonl: splits must be train, dev or test, not {', '.join(sorted(odd))}")
        return corpus
    corpus = recipe.read(source)
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


def measure(utterances: Sequence[Utterance], faults: list[str]) -> list[Utterance]:
    """Fill in the durations that are still 0 from the audio files.

    Args:
        utterances: any number.
        faults: gets one line for each file that cannot be read.

    Returns:
        The utterances that have a duration.
    """
    unknown = [utterance for utterance in utterances if not utterance.duration]
    measured: list[float | str] = []
    with ThreadPoolExecutor(8) as pool, progress_bar() as progress:
        task = progress.add_task("reading durations", total=len(unknown))
        for seconds in pool.map(_seconds, unknown):
            progress.advance(task)
            measured.append(seconds)
    faults += [fault for fault in measured if isinstance(fault, str)]
    found, good = iter(measured), []
    for utterance in utterances:
        seconds = utterance.duration or next(found)
        if not isinstance(seconds, str):
            good.append(utterance if utterance.duration else replace(utterance, duration=seconds))
    return good


def _seconds(utterance: Utterance) -> float | str:
    try:
        utterance.audio_filepath.encode()
        seconds = duration(utterance.audio_filepath)
    except UnicodeEncodeError:  # manifests are UTF-8
        return f"{utterance.audio_filepath!r}: its name is not UTF-8: rename it"
    except AudioError as error:
        return str(error)
    return seconds if seconds > 0 else f"{utterance.audio_filepath}: holds no audio"


def _hold_out(recipe: ModuleType, source: Path, utterances: list[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Split train in two, by the recipe's rule if that finds anything, else by a hash."""
    if len(utterances) < 2:
        raise DataError(f"{source}: too few utterances with audio and text to hold any out for dev")
    is_dev = getattr(recipe, "is_dev", lambda _: False)
    dev = [utterance for utterance in utterances if is_dev(utterance)]
    train = [utterance for utterance in utterances if not is_dev(utterance)]
    return (train, dev) if train and dev else hold_out(utterances)


# Stages


@dataclass(frozen=True)
class Step:
    """One command of a stage.

    Args:
        stage: one of `STAGES`.
        command: what follows `asr` on the command line.
        products: the files it makes.
        newer_than: files that the products must not be older than.
        made_from: files of which it is only said if the products are older.
    """

    stage: str
    command: list[str]
    products: list[Path]
    newer_than: tuple[Path, ...] = ()
    made_from: tuple[Path, ...] = ()

    @property
    def done(self) -> bool:
        """Tell whether there is nothing left to do."""
        return all(product.is_file() for product in self.products) and not self.is_older_than(self.newer_than)

    def is_older_than(self, sources: Sequence[Path]) -> bool:
        """Tell whether a product is older than one of these files."""
        made = min(product.stat().st_mtime for product in self.products)
        return any(source.is_file() and source.stat().st_mtime > made for source in sources)


def plan(
    corpus: str, source: Path | None, output: Path, run: Path, search: Sequence[str], overrides: Sequence[str]
) -> list[Step]:
    """Lay out the commands that take a corpus to a measured model.

    Args:
        corpus: one of `corpora()`, and the name of its configuration.
        source: where the corpus lies, or None.
        output: folder for the manifests.
        run: folder of the training run, as the composed configuration has it.
        search: options of `asr evaluate` that say how it searches.
        overrides: changes to the configuration.

    Returns:
        The steps in order; what is evaluated is what is prepared, or may be.
    """
    recipe, model, done = load(corpus), run / "model.safetensors", run / "train.done"
    given = ["--source", str(source)] if source else []
    resume = ["--resume"] if any((run / "checkpoints").glob("*.ckpt")) else []
    train = output / "train.jsonl"
    manifests = _written(recipe, output) or [output / f"{name}.jsonl" for name in recipe.SPLITS]
    steps = [
        Step("prepare", ["prepare", corpus, *given, "--output", str(output)], [train]),
        Step("tokenizer", ["tokenizer", "--config", corpus, *overrides], [run / "tokenizer.model"]),
        Step("train", ["train", "--config", corpus, *resume, *overrides], [model, done], made_from=(train,)),
    ]
    for manifest in manifests:
        if manifest.stem != "train":
            result = run / "results" / f"{manifest.stem}.json"
            command = ["evaluate", "--model", str(model), "--manifest", str(manifest), *search]
            steps.append(Step("evaluate", [*command, "--json", str(result)], [result], newer_than=(model, manifest)))
    return steps


def show(steps: Sequence[Step]) -> list[str]:
    """Write a plan down: of each step the command, what it makes, and whether that is there."""
    lines = []
    for step in steps:
        lines.append(f"{step.stage}: {'skipped, done already' if step.done else shlex.join(['asr', *step.command])}")
        lines += [f"    -> {product}" for product in step.products]
    return lines


def _other_command(step: Step) -> str | None:
    """Give the command that training was ended by, if its settings were not those of this step."""
    made = json.loads(step.products[-1].read_text(encoding="utf-8"))["command"][1:]
    same = [word for word in made if word != "--resume"] == [word for word in step.command if word != "--resume"]
    return None if same else shlex.join(["asr", *made])


def run_step(step: Step) -> None:
    """Run one command in a process of its own, unless its products are there.

    A process of its own because several GPUs are trained on by starting the same command once for each of them.

    Raises:
        DataError: it failed; its own message is on standard error.
        KeyboardInterrupt: the user stopped it.
    """
    names = ", ".join(map(str, step.products))
    if step.done:
        say(f"{step.stage}: skipped, {names} {'is' if len(step.products) == 1 else 'are'} there")
        if step.stage == "train" and (other := _other_command(step)):
            say(f"  made by another command, {other}; for a new run name another run=FOLDER")
        if step.is_older_than(step.made_from):
            say("  its data have changed since; for a new run name another run=FOLDER")
        if "--source" in step.command:
            say("  --source was not looked at: delete the manifests to prepare anew")
        return
    say(f"{step.stage}: {shlex.join(['asr', *step.command])}")
    with subprocess.Popen([sys.executable, "-P", "-m", "asr.cli", *step.command]) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # it was sent to the child as well, which puts its things in order
            process.wait()
            raise
        except SystemExit:  # told to stop: so is the child
            process.terminate()
            process.wait()
            raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise DataError(f"stage {step.stage} failed with exit code {code}; the message above says why")
    if step.stage == "train":  # the model is there from the first validation on: only this says that training ended
        write_file(step.products[-1], json.dumps({"command": ["asr", *step.command]}) + "\n")
    if not step.done:
        raise DataError(f"stage {step.stage} made no {names}")
    return
