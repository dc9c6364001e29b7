"""What can go wrong because of an input, each kind with its own name.

Every message is one line that says which file or key, what is wrong with it, and what to do.
The command line prints that line and nothing else; a traceback means a bug in this package.
"""

from __future__ import annotations


class AsrError(Exception):
    """An error the user can mend; the message says how."""


class AudioError(AsrError):
    """An audio file is missing, unreadable, empty or damaged."""


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
