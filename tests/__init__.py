"""Tests mirror the rooms. `typecheck` is the checker behind every shape annotation: an int is also a float here."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
