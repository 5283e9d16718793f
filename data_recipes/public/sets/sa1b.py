r"""SA-1B (Segment Anything): 11M licensed photographs in high resolution, faces and plates blurred, with masks.

A thousand archives `sa_000000.tar` ... `sa_000999.tar`. The members of one sample:

    sa_223750.jpg
    sa_223750.json   {"image": {"image_id": 223750, "width": 2250, "height": 1500, "file_name": "sa_223750.jpg"},
                      "annotations": [{"id": 125638, "bbox": [...], "area": 8400, "segmentation": {"size": [...],
                                       "counts": "..."}, "predicted_iou": 0.95, "stability_score": 0.98, ...}, ...]}

There are no captions: build with `--recaption` or `--recaption-model`, else every row is dropped. Masks are not used.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_recipes.public.base import DataSet, SourceRow
from data_recipes.public.sources import PICTURE_SUFFIXES, archive_samples, folder, picture_at, picture_member

CARD = DataSet(
    name="sa1b",
    title="SA-1B",
    kind="text_to_image",
    homepage="https://ai.meta.com/datasets/segment-anything/",
    hub_id=None,
    licence="SA-1B Dataset Research License",
    commercial="no",
    commercial_reason="the licence is for research, on a non-commercial basis",
    size="11M pictures, about 10 TB in 1,000 archives",
    stage="3",
    files="sa_*.tar, or their pictures unpacked",
)


def read(source: str) -> Iterator[SourceRow]:
    """One row per picture, without captions.

    Raises:
        FileNotFoundError: neither archives nor pictures are there.
    """
    root = folder(source, CARD.files)
    if any(root.rglob("*.tar")):
        for key, members in archive_samples(root):
            picture = picture_member(members)
            if picture is not None:
                yield SourceRow(id=key.rpartition("/")[2], pictures=(picture,))
        return
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("sa_*") if path.suffix in PICTURE_SUFFIXES)
    if not names:
        raise FileNotFoundError(f"neither sa_*.tar nor sa_*.jpg below {root}")
    for name in names:
        yield SourceRow(id=name.rpartition("/")[2].partition(".")[0], pictures=(picture_at(root, name),))
