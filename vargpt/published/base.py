"""What every published family of models that only draw has: names, sizes stated in full, and a way to load one.

In: a local folder or a hub id, and the name of a variant. Out: a `Published`, which says where the files of one size
are and loads it. A new family is a subclass in a file of its own, and a line in `families.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from vargpt.loading.hub import fetch, files_hash
from vargpt.text_to_image.pipeline import TextToImage, TextToImageConfig
from vargpt.types import ImageSampling


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One published size. `weights` is a file, or a folder of shards with an index; `beside` are files it needs too."""

    weights: str
    beside: tuple[str, ...]
    default_size: str  # HEIGHTxWIDTH in pixels: what this size was trained on last
    sampling: ImageSampling

    @property
    def patterns(self) -> list[str]:
        """What of the repository must be downloaded."""
        return [self.weights, f"{self.weights}/*", *self.beside]


Size = TypeVar("Size", bound=Variant)


class Family(ABC, Generic[Size]):
    """A published family. `repositories` are its hub ids, as people write them; the first one is named in messages."""

    name: ClassVar[str]
    repositories: ClassVar[tuple[str, ...]]
    variants: Mapping[str, Size]

    def is_meant(self, name: str | Path) -> bool:
        """Whether a folder holds, or a hub id names, a model of this family."""
        folder = Path(name)
        if folder.is_dir():
            return bool(self.variants_in(folder))
        return str(name).lower() in {repository.lower() for repository in self.repositories}

    def variants_in(self, folder: Path) -> list[str]:
        """The variants whose weights lie in a folder."""
        return [name for name, variant in self.variants.items() if (folder / variant.weights).exists()]

    @abstractmethod
    def config(self, variant: Size) -> TextToImageConfig:
        """Of what the weights are to be loaded into."""

    @abstractmethod
    def load(
        self, found: Published, device: str, dtype: str, text_encoder: str | Path | None, vae: str | Path | None
    ) -> TextToImage:
        """A model ready to draw; see `load_text_to_image`."""

    @abstractmethod
    def files(self, found: Published, vae: str | Path | None) -> Sequence[Path]:
        """The files that hold the weights."""


@dataclass(frozen=True)
class Published:
    """One size of a published model: where it is, and which it is."""

    name: str  # as it was asked for: a folder or a hub id
    variant_name: str
    family: Family

    @property
    def variant(self) -> Variant:
        return self.family.variants[self.variant_name]

    @property
    def is_local(self) -> bool:
        return Path(self.name).is_dir()

    @property
    def model_name(self) -> str:
        """For people: file metadata."""
        return f"{Path(self.name).resolve().name if self.is_local else self.name} {self.variant_name}"

    def config(self) -> TextToImageConfig:
        """Of what the weights are to be loaded into."""
        return self.family.config(self.variant)

    def fingerprint(self, vae: str | Path | None = None) -> str:
        """What a picture says it was drawn by (see `files_hash`)."""
        return files_hash(self.family.files(self, vae))

    def load(
        self,
        device: str = "auto",
        dtype: str = "auto",
        text_encoder: str | Path | None = None,
        vae: str | Path | None = None,
    ) -> TextToImage:
        """Ready to draw.

        Args:
            device: auto, cpu, cuda, cuda:1 ... or mps.
            dtype: auto, float32, bfloat16 or float16.
            text_encoder: folder or hub id of what reads the prompts; None = as published.
            vae: file of the image tokenizer; None = the one that belongs to the variant, from the same place.

        Raises:
            FileNotFoundError: something is not there; the message names it.
            ValueError: files do not belong together.
        """
        return self.family.load(self, device, dtype, text_encoder, vae)

    def folder(self) -> Path:
        """Where the files are; from the hub, those of this variant are fetched first.

        Raises:
            FileNotFoundError: the hub does not give them out, or the folder lacks the weights.
        """
        folder = Path(self.name)
        if not self.is_local:
            instead = f"give a folder that holds {self.variant.weights} and {self.variant.beside[0]}"
            folder = fetch(self.name, self.variant.patterns, instead)
        if not (folder / self.variant.weights).exists():
            here = ", ".join(self.family.variants_in(folder)) or "none"
            raise FileNotFoundError(
                f"{folder} lacks {self.variant.weights}, which variant {self.variant_name} is made of "
                f"(variants that are there: {here}); download it too, or choose another variant"
            )
        return folder
