"""`vargpt doctor`: prints the findings about this machine and sets the exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from vargpt.commands import opening

REFUSED = 1  # exit code: something is amiss


def doctor(
    model: Annotated[str | None, typer.Option("--model", help="Folder or hub id: estimate what it needs.")] = None,
) -> None:
    """Say what is installed, which device will be used, and what fits. Exit code 1: something is amiss."""
    from vargpt.commands.doctor import examine, findings_table

    findings = examine(model)
    opening.console().print(findings_table(findings))
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(REFUSED)
