"""``python -m ssmcore`` is the command ``ssmcore``."""

from ssmcore.cli import main

main()
