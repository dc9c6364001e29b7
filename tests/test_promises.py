"""docs/promises.md: each promise names tests that are there, or says why it has none."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text("utf-8")
RULES = 40  # the design's own come after them
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NOT_YET = re.compile(r"\*Not yet: (.+)\*")


def promises(page: str) -> list[tuple[int, str]]:
    """The number and the text of each item of a page's numbered lists, up to the next item or heading."""
    return [
        (int(number), text)
        for number, text in re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^#|\Z)", page, re.MULTILINE | re.DOTALL)
    ]


@cache
def collected(path: str) -> set[str]:
    """The tests that pytest would collect from a file."""
    file = ROOT / path
    tree = ast.parse(file.read_text("utf-8")) if file.is_file() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def faults(text: str) -> list[str]:
    """What is wrong with one promise."""
    named, reasons = TEST.findall(text), NOT_YET.findall(text)
    found = [f"there is no {path}::{name}" for path, name in named if name not in collected(path)]
    if not named and not reasons:
        found.append("names no test and gives no reason")
    if any(len(reason.split()) < 4 for reason in reasons) or text.count("Not yet") != len(reasons):
        found.append("gives no reason for what is not yet kept")
    if text.count("::") != len(named) or len(set(named)) < len(named):
        found.append("names a test in another way than `tests/path.py::test_name`, or twice")
    return found


@pytest.mark.parametrize(("number", "text"), promises(PAGE), ids=lambda value: str(value)[:60])
def test_a_promise_has_its_tests(number, text):
    assert not faults(text)


def test_every_rule_is_there_in_order():
    numbers = [number for number, _ in promises(PAGE)]
    design = len(numbers) - RULES
    assert numbers == [*range(1, RULES + 1), *range(1, design + 1)]
    assert design > 15


def test_a_false_name_and_a_missing_reason_are_found():
    page = "1. Kept. `tests/test_promises.py::test_a_false_name_and_a_missing_reason_are_found`\n"
    page += "2. `tests/test_promises.py::test_nothing`\n3. `tests/gone.py::test_a`\n4. Nothing.\n5. *Not yet: later*\n"
    wrong = [faults(text) for _, text in promises(page)]
    assert [bool(found) for found in wrong] == [False, True, True, True, True]
