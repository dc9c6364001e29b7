"""Formats that hold a transcript as it is: txt, json, tsv."""

from __future__ import annotations

import json

from asr.transcript import Transcript


def to_txt(transcript: Transcript) -> str:
    """The words on one line, after the channel's number where channels were split."""
    label = f"channel {transcript.channel}: " if transcript.channel else ""
    return f"{label}{transcript.text}\n"


def to_json(transcript: Transcript, indent: int | None = 2) -> str:
    """Everything there is, as UTF-8 JSON, without an indent on one line; docs/transcript.schema.json describes it."""
    return json.dumps(transcript.to_dict(), indent=indent, ensure_ascii=False) + "\n"


def to_tsv(transcript: Transcript) -> str:
    """One line for each segment: start and end in milliseconds, and the text, as Whisper's command line writes it.

    White space in the text, of which tabs and line ends would break the table, becomes a single blank.
    """
    texts = [(segment, " ".join(segment.text.split())) for segment in transcript.segments]
    rows = [f"{round(1000 * each.start)}\t{round(1000 * each.end)}\t{text}" for each, text in texts if text]
    return "\n".join(["start\tend\ttext", *rows]) + "\n"
