"""Measurements that maintainers run; each is a file of `tools/benchmarks`. The last line says where, of what and when.

python tools/benchmark.py model                     # size, operations and memory of every conf/model/*.yaml
python tools/benchmark.py model --vocabulary 5000 --seconds 30 --batch 1
python tools/benchmark.py train-step --peers FOLDER   # audio seconds trained on per second, beside other toolkits
"""

from __future__ import annotations

import argparse
import importlib
import time

import torch

from asr.evaluation.evaluate import hardware
from asr.evaluation.results import commit

COMMANDS = (
    "data",
    "decode",
    "long-audio",
    "manifest",
    "model",
    "plan",
    "train",
    "train-step",
    "transcribe",
    "word-times",
)


def main() -> None:
    """Parse the sub-command and run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        about = str(module.__doc__)
        command = commands.add_parser(
            name, help=about.splitlines()[0], description=about, formatter_class=parser.formatter_class
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args()
    arguments.run(arguments)
    print(f"{hardware(torch.device('cpu'))}, commit {commit()}, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
