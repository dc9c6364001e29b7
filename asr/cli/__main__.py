"""`python -m asr.cli`."""

from asr.cli import main

main()
