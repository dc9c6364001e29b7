from __future__ import annotations

from pathlib import Path

import pytest

from asr.manifest import write_manifest


@pytest.fixture
def eight(manifest, tmp_path) -> Path:
    """The eight shortest shipped utterances as a manifest."""
    shortest = sorted(manifest, key=lambda utterance: utterance.duration)[:8]
    write_manifest(tmp_path / "eight.jsonl", shortest)
    return tmp_path / "eight.jsonl"
