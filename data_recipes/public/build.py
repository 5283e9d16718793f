"""`python -m data_recipes.public.build --data-set NAME --source DIR --out DIR`: build a folder, or resume a build.

`--list` names the data sets, their licences and what each needs. docs/data.md has examples.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes.public.caption_conversations import TransformersCaptioner, named
from data_recipes.public.catalogue import DATA_SETS, recipe
from data_recipes.public.filters import FILTERS
from data_recipes.public.manifest import BuildSettings, Manifest
from data_recipes.public.shards import build


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked for combinations that make no sense; exits with a usage error on those."""
    parser = argparse.ArgumentParser(prog="python -m data_recipes.public.build", description="Build rows to train on.")
    add = parser.add_argument
    add("--list", action="store_true", help="list the data sets, their licences and what each needs, and stop")
    add("--data-set", metavar="NAME")
    add("--source", help="a folder on disk, or an id on the Hugging Face hub")
    add("--out", type=Path, metavar="DIR", help="a new folder, or one to go on with")
    add("--filter", action="append", default=[], metavar="NAME=NUMBER",
        help=f"{', '.join(FILTERS)}; may be given several times")  # fmt: skip
    add("--limit", type=int, metavar="N", help="keep at most N rows")
    add("--shard-size", type=int, default=1000, metavar="N", help="rows of the source per file (default: 1000)")
    add("--long-share", type=float, default=0.5, metavar="P", help="how often the longest caption is asked for")
    add("--recaption", metavar="MODULE:NAME", help="a function of your own, from a PIL image to its caption")
    add("--recaption-model", metavar="ID", help="a vision-language model for transformers' image-text-to-text")
    add("--replace-captions", action="store_true", help="drop the captions of the set for the new ones")
    add("--device", default="cpu", help="of --recaption-model")
    add("--scorer", metavar="MODULE:NAME", help="a function of your own, from a PIL image to a number")
    add("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if not options.list and not (options.data_set and options.source and options.out):
        parser.error("--data-set, --source and --out are needed (or --list)")
    if options.recaption and options.recaption_model:
        parser.error("--recaption and --recaption-model: one of the two")
    if options.replace_captions and not (options.recaption or options.recaption_model):
        parser.error("--replace-captions needs --recaption or --recaption-model")
    return options


def run(options: argparse.Namespace) -> Iterator[Manifest]:
    """The build that the command line asks for."""
    settings = BuildSettings(
        data_set=options.data_set,
        source=options.source,
        filters=tuple(options.filter),
        limit=options.limit,
        shard_size=options.shard_size,
        long_share=options.long_share,
        captioner=options.recaption or options.recaption_model,
        keep_captions=not options.replace_captions,
        scorer=options.scorer,
        seed=options.seed,
    )
    captioner = named(options.recaption) if options.recaption else None
    if options.recaption_model:
        captioner = TransformersCaptioner(options.recaption_model, device=options.device)
    return build(settings, options.out, captioner, named(options.scorer) if options.scorer else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when the build is finished, 2 when it cannot be done as asked."""
    options = parse(arguments)
    if options.list:
        for name, module in DATA_SETS.items():
            card = module.CARD
            print(f"{name:22} commercial use: {card.commercial:8} {card.licence}\n{'':22} needs {card.files}")
        return 0
    try:
        card = recipe(options.data_set).CARD
        print(f"{card.title}: {card.licence}. Commercial use: {card.commercial} ({card.commercial_reason}).")
        for manifest in run(options):
            print(f"read {manifest.read}, kept {manifest.kept}, broken {manifest.broken}, dropped {manifest.dropped}")
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
