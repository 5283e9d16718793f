r"""ImageNet-1k: 1.28M pictures in a thousand classes; what VAR, LlamaGen and MAR draw by class.

Either the folders of the challenge, with its table of names:

    ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG
    LOC_synset_mapping.txt       n01440764 tench, Tinca tinca

or the parquet files of the hub, whose rows are

    {"image": {"bytes": ..., "path": "n01440764_10026_n01440764.JPEG"}, "label": 0}

A class becomes "a photo of a tench": the first of its names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_recipes.public.base import DataSet, SourceRow
from data_recipes.public.sources import first_file, folder, is_hub_id, picture_at, picture_of, table

CARD = DataSet(
    name="imagenet",
    title="ImageNet-1k (ILSVRC 2012)",
    kind="labels",
    homepage="https://www.image-net.org/",
    hub_id="ILSVRC/imagenet-1k",
    licence="ImageNet Terms of Access",
    commercial="no",
    commercial_reason="the terms allow non-commercial research and education only",
    size="1.28M pictures, 150 GB",
    stage="tokenizer, class-conditional",
    files="train/nXXXXXXXX/*.JPEG and LOC_synset_mapping.txt, or *.parquet",
)


def read(source: str) -> Iterator[SourceRow]:
    """One row per picture, class by class.

    Raises:
        FileNotFoundError: neither class folders nor parquet files are there.
        ValueError: a class folder has no name in the table.
    """
    if is_hub_id(source) or any(folder(source, CARD.files).rglob("*.parquet")):
        for number, row in enumerate(table(source)):
            cell = row["image"]
            name = cell.get("path") or f"{number}.jpg"
            yield SourceRow(
                id=f"{number}-{name}", pictures=(picture_of(cell, name),), captions=(photo_of(str(row["label"])),)
            )
        return
    root = folder(source, CARD.files)
    names = read_names(first_file(root, "LOC_synset_mapping.txt"))
    for synset in sorted(path for path in root.rglob("n[0-9]*") if path.is_dir()):
        if synset.name not in names:
            raise ValueError(f"{synset} is no class that LOC_synset_mapping.txt names")
        for path in sorted(synset.iterdir()):
            name = path.relative_to(root).as_posix()
            yield SourceRow(id=path.stem, pictures=(picture_at(root, name),), captions=(photo_of(names[synset.name]),))


def read_names(path: Path) -> dict[str, str]:
    """Names by synset: "tench, Tinca tinca" of "n01440764"."""
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {synset: names.strip() for synset, names in lines}


def photo_of(names: str) -> str:
    """ "a photo of a tench" of "tench, Tinca tinca"."""
    name = names.split(",")[0].strip()
    return f"a photo of {'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
