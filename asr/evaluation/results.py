"""Results kept: one JSON, one row of a CSV table, and the tables in the recipes' README files.

A README table stands between two markers, and a hash of it behind it: who edits a number by hand is found out.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from asr.errors import DataError, WriteError
from asr.files import write_file

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
COLUMNS = ("date", "commit", "model", "parameters", "hardware", "decoding", "set", "WER % [95 %]", "CER %", "RTF")
_KEY = tuple(COLUMNS.index(name) for name in ("model", "set", "decoding"))
_SEAL = re.compile(r"<!-- sha256 ([0-9a-f]{64}) -->")


def commit() -> str | None:
    """Give the checkout's commit, with `-dirty` when files differ from it; None for an installed package."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists() or not shutil.which("git"):  # a container may have the one and not the other
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result atomically, as UTF-8 JSON."""
    write_file(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a result of `write_json`.

    Raises:
        DataError: the file is missing or no result.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not {"wer", "normalizer", "data", "results"} <= content.keys():
        raise DataError(f"{path}: is no result of asr evaluate or asr score: make it anew with --json")
    return content


def errors_in(row: dict[str, Any]) -> int:
    """Count the word errors of a result, or of one utterance of it."""
    return row["substitutions"] + row["deletions"] + row["insertions"]


def append_csv(path: Path, result: dict[str, Any]) -> None:
    """Add a result to a table as one row; several programs may do so at once.

    Raises:
        DataError: the table has other columns.
        WriteError: the file cannot be written.
    """
    row = _flat(result)
    header = _csv_line(list(row))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _create(path, header)
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            if file.readline() != header:
                raise DataError(f"{path}: has other columns than this version writes: name a new file")
        line = _csv_line(list(row.values())).encode(errors="replace")
        with open(path, "rb") as file:  # an editor may have dropped the end of the last line
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else b"\n" + line
        with open(path, "ab") as file:  # one write in append mode: rows of several programs do not mix
            file.write(line)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}: check the folder and disk") from error


def _create(path: Path, header: str) -> None:
    """Make a table with its header at one stroke; if another program was first, that is as good."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", newline="") as file:
        file.write(header)
        file.flush()
        os.chmod(file.name, 0o644)
        try:
            os.link(file.name, path)
        except FileExistsError:
            return


def _flat(result: dict[str, Any]) -> dict[str, Any]:
    names = ("wer", "cer", "raw_wer", "raw_cer", "substitutions", "deletions", "insertions", "words", "utterances")
    facts = ("real_time_factor", "busy", "audio_seconds", "model", "parameters", "hardware", "commit", "date")
    interval, cer_interval, normalizer, data = (result[k] for k in ("interval", "cer_interval", "normalizer", "data"))
    return {
        "set": data.get("name", ""),
        **{name: result[name] for name in names},
        "low": interval["low"],
        "high": interval["high"],
        "cer_low": cer_interval["low"],
        "cer_high": cer_interval["high"],
        "blocks": interval["blocks"],
        "unit": interval["unit"],
        "empty_references": result["empty_references"],
        "words_on_empty_references": result["words_on_empty_references"],
        **{f"normalizer_{key}": normalizer[key] for key in ("name", "version", "hash")},
        "data_hash": data["hash"],
        **{name: result.get(name, "") for name in facts},
        "decoding": result.get("decoding_label", ""),
    }


def _csv_line(cells: list[Any]) -> str:
    # A cell that a spreadsheet would take for a formula gets an apostrophe.
    shown = [f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell for cell in cells]
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(shown)
    return line.getvalue()


def update_table(path: Path, result: dict[str, Any]) -> None:
    """Put a result into the table of a README; it takes the place of a row of the same model, set and decoding.

    Args:
        path: a Markdown file with the markers `results:begin` and `results:end`. Prose between them is replaced.
        result: of `asr evaluate`.

    Raises:
        DataError: the file has no markers, or its table was edited by hand.
    """
    before, table, after = _split(path)
    rows = _verified(path, table)
    new = _row(result)
    rows = [new if _key(row) == _key(new) else row for row in rows]
    rows += [] if any(_key(row) == _key(new) for row in rows) else [new]
    lines = ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    body = "\n".join(lines)
    write_file(path, f"{before}{BEGIN}\n{body}\n\n<!-- sha256 {_hash(body)} -->\n{END}{after}")


def check_table(path: Path) -> int:
    """Refuse a table that was not written by `update_table`.

    Returns:
        How many rows it has.

    Raises:
        DataError: the file has no markers, or its table was edited by hand.
    """
    return len(_verified(path, _split(path)[1]))


def _split(path: Path) -> tuple[str, str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f"{path}: needs the lines {BEGIN} and {END}, once each, where the table shall stand")
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    return before, table, after


def _verified(path: Path, table: str) -> list[list[str]]:
    if "|" not in table:  # nothing, or a word on why there is nothing yet
        return []
    seal = _SEAL.search(table)
    body = table[: seal.start()].strip("\n") if seal else ""
    if not seal or table[seal.end() :].strip() or seal[1] != _hash(body):
        raise DataError(f"{path}: the table was edited by hand: empty it between its markers and measure again")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()[2:]]
    if any(len(row) != len(COLUMNS) for row in rows):
        raise DataError(f"{path}: the table has other columns: empty it between its markers and measure again")
    return rows


def _hash(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _key(row: list[str]) -> list[str]:
    return [row[index] for index in _KEY]


def _row(result: dict[str, Any]) -> list[str]:
    interval = result["interval"]
    normalizer = result["normalizer"]
    rate = f"{100 * result['wer']:.2f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"
    cells = (
        result["date"],
        result["commit"] or f"version {result['version']}",
        result["model"],
        f"{result['parameters'] / 1e6:.1f} M",
        result["hardware"],
        result["decoding_label"],
        f"{result['data']['name']} ({result['words']} words, normaliser {normalizer['name']} {normalizer['hash']})",
        f"{rate} by {interval['blocks']} {interval['unit']}s",
        f"{100 * result['cer']:.2f}",
        f"{result['real_time_factor']:.4f}" + (" (busy machine)" if result["busy"] else ""),
    )
    return [" ".join(re.sub(r"[|<>]", "/", cell).split()) for cell in cells]
