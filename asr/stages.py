"""The stages of `asr recipe`: from a corpus to a trained and measured model, in commands that need not be repeated."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.download import say
from asr.errors import DataError
from asr.files import write_file
from asr.recipes import load, written

STAGES = ("prepare", "tokenizer", "train", "evaluate")


@dataclass(frozen=True)
class Step:
    """One command of a stage.

    Args:
        stage: one of `STAGES`.
        command: what follows `asr` on the command line.
        products: the files it makes; a last one that ends in `.done` is `run_step`'s note of the command.
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
        """Tell whether there is nothing left to do; what another search measured does not count."""
        if not all(product.is_file() for product in self.products) or self.is_older_than(self.newer_than):
            return False
        return self.stage != "evaluate" or self.made_by_another is None

    @property
    def made_by_another(self) -> str | None:
        """Give the command that ended the stage, if its settings were not those of this step."""
        made = json.loads(self.products[-1].read_text(encoding="utf-8"))["command"][1:]
        same = [word for word in made if word != "--resume"] == [word for word in self.command if word != "--resume"]
        return None if same else shlex.join(["asr", *made])

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
    resume = ["--resume"] if any((run / "checkpoints").glob("step-*.ckpt")) else []
    train = output / "train.jsonl"
    manifests = written(recipe, output) or [output / f"{name}.jsonl" for name in recipe.SPLITS]
    steps = [
        Step("prepare", ["prepare", corpus, *given, "--output", str(output)], [train]),
        Step("tokenizer", ["tokenizer", "--config", corpus, *overrides], [run / "tokenizer.model"]),
        Step("train", ["train", "--config", corpus, *resume, *overrides], [model, done], made_from=(train,)),
    ]
    for manifest in manifests:
        if manifest.stem != "train":
            result = run / "results" / f"{manifest.stem}.json"
            command = ["evaluate", "--model", str(model), "--manifest", str(manifest), *search]
            made = [result, result.with_suffix(".done")]
            steps.append(Step("evaluate", [*command, "--json", str(result)], made, newer_than=(model, manifest)))
    return steps


def show(steps: Sequence[Step]) -> list[str]:
    """Write a plan down: of each step the command, what it makes, and whether that is there."""
    lines = []
    for step in steps:
        lines.append(f"{step.stage}: {'skipped, done already' if step.done else shlex.join(['asr', *step.command])}")
        lines += [f"    -> {product}" for product in step.products]
    return lines


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
        if step.stage == "train" and (other := step.made_by_another):
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
    if step.products[-1].suffix == ".done":  # a model is there from the first validation on: this says that it ended
        write_file(step.products[-1], json.dumps({"command": ["asr", *step.command]}) + "\n")
    if not step.done:
        raise DataError(f"stage {step.stage} made no {names}")
