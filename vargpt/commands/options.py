"""The options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[str | None, typer.Option("--model", help="Model folder or hub id; default: the shipped nano.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ... or mps.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="The same seed draws the same picture; default: new.")]
CountOption = Annotated[int, typer.Option("--n", help="Pictures per wish, 1 to 16.")]
SizeOption = Annotated[str | None, typer.Option("--size", help="WIDTHxHEIGHT in pixels, one that the model has.")]
GuidanceOption = Annotated[float | None, typer.Option("--guidance", help="How closely to follow the words; 1 = plain.")]
TemperatureOption = Annotated[float | None, typer.Option("--temperature", help="0 = always the likeliest picture.")]
TopPOption = Annotated[float | None, typer.Option("--top-p", help="Leave out unlikely choices; 0 to 1.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Draw even if the model would rather not.")]
VariantOption = Annotated[str | None, typer.Option("--variant", help="Which size of a model that comes in several.")]
NegativeOption = Annotated[str | None, typer.Option("--negative", help="What to stay away from; Infinity only.")]
TextEncoderOption = Annotated[
    str | None,
    typer.Option("--text-encoder", help="Folder or hub id of the T5 that reads the prompts; Infinity only."),
]
VaeOption = Annotated[Path | None, typer.Option("--vae", help="File of the image tokenizer; Infinity only.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="PNG file or folder.")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
QuantizeOption = Annotated[str | None, typer.Option("--quantize", help="int8 or nf4: smaller weights, large models.")]
OffloadOption = Annotated[bool, typer.Option("--offload", help="Keep layers in main memory until they are needed.")]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Fuse the generator's layers at the first picture; meant for GPUs.")
]
AdapterOption = Annotated[
    list[Path] | None, typer.Option("--adapter", help="Folder of an adapter (vargpt finetune makes one); repeatable.")
]
RegionOption = Annotated[
    str | None,
    typer.Option("--region", help="What may change: a mask (PNG, white = may change), or x,y,w,h in pixels."),
]
FaithfulnessOption = Annotated[
    float, typer.Option("--faithfulness", help="How much to lean towards the picture's own bits; 0 to 1.")
]
KeepScalesOption = Annotated[
    int, typer.Option("--keep-scales", help="With --from PICTURE: so many coarse scales of it stay, the rest is new.")
]
