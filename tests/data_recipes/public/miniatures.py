"""Every data set in miniature, written in the format that it is published in: a handful of rows, one picture broken.

`write[name](folder)` writes one. The pictures are noise of a few pixels, each of its own seed, so that none look alike.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_recipes.public.built_folder import Built
from data_recipes.public.manifest import BuildSettings
from data_recipes.public.shards import build

BROKEN = b"\xff\xd8\xff\xe0 this is no picture"


def noise(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, image_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format)
    return buffer.getvalue()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def archive(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def parquet(path: Path, rows: list[dict[str, Any]], features: Any = None) -> None:
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)


def conversation(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[index % 2], "value": value} for index, value in enumerate(values)]


def llava_instruct(root: Path) -> None:
    rows = [
        {"id": "000000033471", "image": "coco/train2017/000000033471.jpg",
         "conversations": conversation("<image>\nWhat colour is the bus?\nAnswer with one word.", "White",
                                       "And what is on the back of it?", "An advertisement")},
        {"id": "n161313", "image": "vg/VG_100K/2331.jpg", "conversations": conversation("Where?\n<image>", "Left")},
        {"id": "broken", "image": "gqa/images/1.jpg", "conversations": conversation("<image>\nWhat is this?", "A dog")},
        {"id": "missing", "image": "ocr_vqa/images/0143034901.jpg", "conversations": conversation("Who?", "He")},
        {"id": "wgByO4Y_0", "model": "", "conversations": conversation("Tell me a joke", "No")},
        {"id": "html", "conversations": conversation("What is <image> in this markup?", "A placeholder")},
    ]  # fmt: skip
    put(root / "llava_v1_5_mix665k.json", json.dumps(rows, indent=1))
    put(root / "coco/train2017/000000033471.jpg", encoded(noise(1)))
    put(root / "vg/VG_100K/2331.jpg", encoded(noise(2)))
    put(root / "gqa/images/1.jpg", BROKEN)


def llava_onevision(root: Path) -> None:
    import datasets

    features = datasets.Features(
        id=datasets.Value("string"),
        image=datasets.Image(),
        conversations=[{"from": datasets.Value("string"), "value": datasets.Value("string")}],
        data_source=datasets.Value("string"),
    )
    rows = [
        {"id": "7", "image": {"bytes": encoded(noise(3), "PNG"), "path": "7.png"},
         "conversations": conversation("<image>\nRead the chart.", "12 %"), "data_source": "chart2text(cauldron)"},
        {"id": "8", "image": {"bytes": BROKEN, "path": "8.jpg"},
         "conversations": conversation("<image>\nAnd this?", "?"), "data_source": "chart2text(cauldron)"},
        {"id": "9", "image": None, "conversations": conversation("What is 2 + 2?", "4"), "data_source": "magpie_pro"},
    ]  # fmt: skip
    parquet(root / "chart2text(cauldron)/train-00000-of-00001.parquet", rows, features)


def laion_coco_aesthetic(root: Path) -> None:
    members = {}
    for number, (aesthetic, data) in enumerate([(5.9, encoded(noise(4))), (4.8, encoded(noise(5))), (6.1, BROKEN)]):
        key = f"{number:09d}"
        columns = {"url": f"https://example.com/{number}.jpg", "key": key, "status": "success", "error_message": None,
                   "caption": "a small model castle", "aesthetic_score": aesthetic, "watermark_score": 0.1}  # fmt: skip
        members |= {
            f"{key}.jpg": data,
            f"{key}.txt": b"a small model castle",
            f"{key}.json": json.dumps(columns).encode(),
        }
    members["000000003.json"] = json.dumps({"status": "failed_to_download"}).encode()
    archive(root / "00000.tar", members)


def journeydb(root: Path) -> None:
    rows = [
        {"img_path": "./000/aa.jpg", "prompt": "a red panda reading, soft light --ar 3:2 --v 4",
         "Task2": {"Caption": "A red panda is reading a book in the soft light of a paper lantern."}, "Task3": {}},
        {"img_path": "./000/bb.jpg", "prompt": "https://s.mj.run/x.png castle --v 5", "Task2": {"Caption": "Castle."}},
        {"img_path": "./001/cc.jpg", "prompt": "a lost picture", "Task2": {"Caption": "It is lost."}},
    ]  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    put(root / "data/train/train_anno_realease_repath.jsonl", lines)
    put(root / "data/train/imgs/000/aa.jpg", encoded(noise(6)))
    put(root / "data/train/imgs/000/bb.jpg", encoded(noise(7)))


def stylebooth(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "train.csv").open("w", newline="", encoding="utf-8") as file:
        file.write("EnStyle,ZhStyle,ShortStyleName,Target:FILE,Source:FILE,SearchResult:DICT\n")
        file.write("Bauhaus-Style Poster,包豪斯风格海报,bauhaus,target/1.jpg,source/1.jpg,{'a': 1, 'b': 2}\n")
        csv.writer(file).writerow(["Lowpoly", "低多边形", "lowpoly", "target/2.jpg", "source/2.jpg", "{}"])
    for number in (1, 2):
        put(root / f"source/{number}.jpg", encoded(noise(10 + number)))
    put(root / "target/1.jpg", encoded(noise(13)))
    put(root / "target/2.jpg", encoded(noise(14))[:200])


def cc3m_cc12m(root: Path) -> None:
    archive(root / "cc3m-train-0000.tar", {
        "000000000.jpg": encoded(noise(15)),
        "000000000.txt": b"a river has burst it 's banks and has spread out , onto farmland",
        "000000001.jpg": BROKEN,
        "000000001.txt": b"a broken picture",
        "000000002.jpg": encoded(noise(16)),
        "000000002.txt": b"actor arrives at the premiere .",
    })  # fmt: skip


def open_images(root: Path) -> None:
    put(root / "oidv7-class-descriptions.csv", 'LabelName,DisplayName\n/m/01,Apple\n/m/02,"Table, wooden"\n/m/03,Dog\n')
    put(root / "oidv7-train-annotations-human-imagelabels.csv",
        "ImageID,Source,LabelName,Confidence\n0001,verification,/m/01,1\n0001,verification,/m/02,1\n"
        "0001,verification,/m/03,0\n0002,crowdsource-verification,/m/03,1\n0003,verification,/m/01,0\n"
        "0004,verification,/m/03,1\n")  # fmt: skip
    narrative = {
        "dataset_id": "open_images",
        "image_id": "0002",
        "annotator_id": 93,
        "caption": "In this image I see a dog.",
    }
    put(root / "open_images_train_v6_captions.jsonl", json.dumps(narrative) + "\n")
    put(root / "train/0001.jpg", encoded(noise(17)))
    put(root / "train/0002.jpg", encoded(noise(18)))
    put(root / "train/0004.jpg", BROKEN)


def sa1b(root: Path) -> None:
    members = {}
    for number, data in ((1, encoded(noise(19))), (2, BROKEN), (3, encoded(noise(20)))):
        masks = {"image": {"image_id": number, "width": 48, "height": 40, "file_name": f"sa_{number}.jpg"},
                 "annotations": [{"id": 1, "bbox": [0, 0, 1, 1], "area": 1}]}  # fmt: skip
        members |= {f"./sa_{number}.jpg": data, f"./sa_{number}.json": json.dumps(masks).encode()}
    archive(root / "sa_000000.tar", members)


def megalith(root: Path) -> None:
    archive(root / "00000.tar", {
        "000000000.jpg": encoded(noise(21)), "000000000.txt": b"A lake between two mountains.", "000000000.json": b"{}",
        "000000001.jpg": BROKEN, "000000001.txt": b"A barn.", "000000001.json": b"{}",
        "000000002.jpg": encoded(noise(22)), "000000002.json": b"{}",
    })  # fmt: skip


def imagenet(root: Path) -> None:
    names = "n01440764 tench, Tinca tinca\nn02058221 albatross, mollymawk\n"
    put(root / "LOC_synset_mapping.txt", names)
    train = root / "ILSVRC/Data/CLS-LOC/train"
    put(train / "n01440764/n01440764_10026.JPEG", encoded(noise(23)))
    put(train / "n02058221/n02058221_3.JPEG", BROKEN)
    put(train / "n02058221/n02058221_8.JPEG", encoded(noise(24)))


def midjourney_prompts(root: Path) -> None:
    prompts = [
        "portrait of an old fisherman, oil on canvas --ar 2:3 --v 5",
        "a well-known --q 2",
        "https://a.b/c.png --v 4",
    ]
    parquet(root / "data/000000.zstd.parquet", [{"prompt": prompt, "version": "5.0"} for prompt in prompts])


write: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        llava_instruct,
        llava_onevision,
        laion_coco_aesthetic,
        journeydb,
        stylebooth,
        cc3m_cc12m,
        open_images,
        sa1b,
        megalith,
        imagenet,
        midjourney_prompts,
    )  # fmt: skip
}


def built(name: str, folder: Path, describe: Callable | None = None, **settings) -> Built:
    """The miniature of this set, written to `folder / "source"` and built in `folder / "out"`."""
    if not (folder / "source").exists():
        write[name](folder / "source")
    for _ in build(BuildSettings(data_set=name, source=str(folder / "source"), **settings), folder / "out", describe):
        pass
    return Built(folder / "out")
