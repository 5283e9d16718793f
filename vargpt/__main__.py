"""`python -m vargpt`: the command line, where the `vargpt` script is not on the path."""

from vargpt.commands.cli import main

main()
