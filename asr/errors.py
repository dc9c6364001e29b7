"""What can go wrong because of an input, each kind with its own name.

Every message is one line that says which file or key, what is wrong with it, and what to do.
The command line prints that line and nothing else; a traceback means a bug in this package.
"""

from __future__ import annotations


class AsrError(Exception):
    """An error the user can mend; the message says how."""


class AudioError(AsrError):
    """An audio file is missing, unreadable, empty or damaged."""


class DataError(AsrError):
    """A manifest, corpus folder or batch plan is wrong."""


class ConfigError(AsrError):
    """A configuration key or value is wrong."""


class CheckpointError(AsrError):
    """A checkpoint is missing, damaged or not one of ours."""
