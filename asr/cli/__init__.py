"""The `asr` program: one verb for each job. It parses, calls and prints; the work is done elsewhere.

Exit codes: 0 all done; 1 some input failed, the rest was done; 2 the command itself is wrong; 130 interrupted;
128 and more: ended by that signal.
The verbs are functions in the modules beside this one. They import heavy modules only when they are called, so that
`asr --help` answers at once.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading

import typer

from asr.cli.align import align
from asr.cli.check import check
from asr.cli.compare import compare
from asr.cli.evaluate import evaluate
from asr.cli.export import export
from asr.cli.lm import app as lm
from asr.cli.manifest import app as manifest
from asr.cli.prepare import prepare
from asr.cli.recipe import recipe, tokenizer
from asr.cli.score import score
from asr.cli.terminal import complain, console
from asr.cli.train import average, info, train
from asr.cli.transcribe import transcribe
from asr.errors import AsrError, StoppedError

app = typer.Typer(
    name="asr",
    help="Speech recognition: transcribe audio, train models, measure word error rate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    transcribe,
    align,
    prepare,
    check,
    recipe,
    tokenizer,
    train,
    evaluate,
    score,
    compare,
    average,
    info,
    export,
):
    app.command()(verb)
app.add_typer(lm, name="lm")
app.add_typer(manifest, name="manifest")


def main() -> None:
    """Run the program; an error the user can mend is one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names need not be text, nor need a terminal know all letters; files and pipes get UTF-8 everywhere.
            utf_8 = not stream.isatty() and "PYTHONIOENCODING" not in os.environ
            stream.reconfigure(encoding="utf-8" if utf_8 else None, errors="replace")
    if threading.current_thread() is threading.main_thread():  # so that all is put in order
        for name in {"SIGTERM", "SIGUSR1"} & set(signal.Signals.__members__):
            signal.signal(signal.Signals[name], lambda number, _: sys.exit(128 + number))
    try:
        app()
    except StoppedError as stopped:
        console.print(str(stopped))
        sys.exit(128 + stopped.signal)
    except AsrError as error:
        complain(error)
        sys.exit(2)
    except OSError as error:  # a folder that is locked, a name too long, a full disk
        where = f"{error.filename}: " if error.filename else ""
        complain(AsrError(f"{where}{(error.strerror or str(error)).lower()}: check names, permissions and disk"))
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == 130:  # what typer makes of an interrupt
            console.print("interrupted; what was finished is kept")
        raise
