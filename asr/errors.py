"""What can go wrong because of an input, each kind with its own name.

Every message is one line that says which file or key, what is wrong with it, and what to do.
The command line prints that line and nothing else; a traceback means a bug in this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self


class AsrError(Exception):
    """An error the user can mend; the message says how."""

    def without_frames(self) -> Self:
        """Let go of the frames that it came through: of one that is kept they would hold minutes of samples."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class AudioError(AsrError):
    """An audio file is missing, unreadable, empty or damaged."""

    @classmethod
    def truncated(cls, source: str | Path, announced: float, there: float) -> AudioError:
        """Say that a file ends early: it announces so many seconds, and so many are there."""
        return cls(f"{source}: is truncated: {there:.1f} s of {announced:.1f} s are there: copy or record it again")

    @classmethod
    def damaged(cls, source: str | Path, reason: str) -> AudioError:
        """Say that a file cannot be decoded to its end, and why."""
        return cls(f"{source}: is damaged or truncated: {' '.join(reason.split())}: copy or record it again")


class InputTypeError(AsrError, TypeError):
    """What was passed as audio is of a kind that cannot be transcribed, such as an array without its sample rate."""


class DataError(AsrError):
    """A manifest, corpus folder or batch plan is wrong."""


class ConfigError(AsrError):
    """A configuration key or value is wrong."""


class CheckpointError(AsrError):
    """A checkpoint is missing, damaged or not one of ours."""


class WriteError(AsrError, OSError):
    """A file cannot be written: its folder is missing or protected, or the disk is full."""


class StoppedError(AsrError):
    """A long job was told to stop by a signal; what was done is saved, and the message says how to go on.

    Args:
        message: what was saved.
        signal: number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
