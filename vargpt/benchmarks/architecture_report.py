"""Tables of how fast an architecture draws, for a terminal; docs/speed.md explains the columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vargpt.benchmarks.architecture_speed import DECODER, GENERATOR, LANGUAGE, ArchitectureSpeed, VariantSpeed

if TYPE_CHECKING:
    from rich.table import Table

ROWS = (
    "transformers", "  times plain", "  of limit", "  of matmul limit",
    "decoder", "  times plain", "  of limit",
    "picture", "  times plain",
    "equal bits", "peak memory",
)  # fmt: skip


def variant_cells(variant: VariantSpeed, plain: VariantSpeed) -> list[str]:
    """One per row: seconds, times faster than the plain flow, share of the machine's limit; share of equal bits."""
    return [
        f"{variant.transformers_s:.3f} s",
        f"{plain.transformers_s / variant.transformers_s:.2f}",
        f"{variant.transformers_limit / variant.transformers_s:.2f}",
        f"{variant.transformers_matmul_limit / variant.transformers_s:.2f}",
        f"{variant.seconds(DECODER):.3f} s",
        f"{plain.seconds(DECODER) / variant.seconds(DECODER):.2f}",
        f"{variant.limit(DECODER) / variant.seconds(DECODER):.2f}",
        f"{variant.picture_s:.3f} s",
        f"{plain.picture_s / variant.picture_s:.2f}",
        f"{variant.equality.share:.2%}",
        "" if variant.peak_memory_mib is None else f"{variant.peak_memory_mib:.0f} MiB",
    ]


def variant_table(speed: ArchitectureSpeed) -> Table:
    """One column per variant."""
    about = speed.about
    title = f"{speed.architecture}, {about['size']} px, {about['tokens']} tokens, {about['hardware']}"
    limits = "; ".join(
        f"{name}: {machine.flops_per_s / 1e9:.0f} GFLOP/s (torch.matmul {machine.matmul_flops_per_s / 1e9:.0f}), "
        f"{machine.bytes_per_s / 1e9:.0f} GB/s"
        for name, machine in speed.machines.items()
    )
    table = _table(speed, title, f"measured limits: {limits}")
    for name, *cells in zip(ROWS, *(variant_cells(one, speed.variants[0]) for one in speed.variants), strict=True):
        table.add_row(name, *cells)
    return table


def scale_table(speed: ArchitectureSpeed) -> Table:
    """Milliseconds and the share of the limit, per organ and scale."""
    table = _table(speed, "milliseconds per scale (share of the limit)", None)
    for organ in (LANGUAGE, GENERATOR):
        if not speed.variants[0].seconds(organ):
            continue
        for k in range(len(speed.variants[0].scale_seconds[organ])):
            times = [(one.scale_seconds[organ][k], one.scale_limits[organ][k]) for one in speed.variants]
            cells = [f"{1e3 * seconds:.1f} ({limit / seconds:.2f})" for seconds, limit in times]
            table.add_row(f"{organ}, scale {k + 1}", *cells)
    return table


def _table(speed: ArchitectureSpeed, title: str, caption: str | None) -> Table:
    from rich.table import Table

    table = Table(title=title, caption=caption, caption_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in ("", *(variant.name for variant in speed.variants)):
        table.add_column(name, justify="right" if name else "left")
    return table
