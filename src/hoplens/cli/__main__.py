"""``python -m hoplens.cli`` is the command ``hoplens``."""

from hoplens.cli.app import main

main()
