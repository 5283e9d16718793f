r"""Open Images V7: 9M Flickr photographs with image-level labels; half a million also have a spoken description.

Pictures lie in `train/` by their id. The tables, with one row each:

    oidv7-train-annotations-human-imagelabels.csv   ImageID,Source,LabelName,Confidence
                                                    000002b66c9c498e,verification,/m/014j1m,1
    oidv7-class-descriptions.csv                    LabelName,DisplayName
                                                    /m/014j1m,Apple
    open_images_train_v6_captions.jsonl (optional)  {"dataset_id": "...", "image_id": "000002b66c9c498e",
                                                     "annotator_id": 93, "caption": "In this image I can see ..."}

The short caption names the labels that people confirmed, the long one is the localized narrative, if there is one. Rows
of one picture follow one another in the table of labels; a picture that comes up again later makes another row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes.public.base import DataSet, SourceRow
from data_recipes.public.sources import csv_rows, first_file, folder, json_lines, picture_at

CARD = DataSet(
    name="open_images",
    title="Open Images V7",
    kind="labels",
    homepage="https://storage.googleapis.com/openimages/web/index.html",
    hub_id=None,
    licence="CC BY 4.0 (annotations), CC BY 2.0 (pictures)",
    commercial="yes",
    commercial_reason="both licences allow it with attribution; Google does not warrant those of the pictures",
    size="9M pictures, 18 TB in full size; 1.9M of them with dense annotations (561 GB)",
    stage="3",
    files="train/*.jpg, *annotations-human-imagelabels.csv, *class-descriptions*.csv, *captions*.jsonl (optional)",
)
MOST_LABELS = 4  # in one caption; people confirm up to dozens, from "Tree" to "Plant"


def read(source: str) -> Iterator[SourceRow]:
    """One row per picture that has a confirmed label.

    Raises:
        FileNotFoundError: the folder or one of the two tables is not there.
    """
    root = folder(source, CARD.files)
    annotations = first_file(root, "*train-annotations-human-imagelabels.csv", "*annotations-human-imagelabels.csv")
    descriptions = first_file(root, "*class-descriptions*.csv")
    names = {row["LabelName"]: row["DisplayName"] for row in csv_rows(descriptions)}
    narratives = read_narratives(root)
    where = root / "train" if (root / "train").is_dir() else root
    for image_id, rows in itertools.groupby(csv_rows(annotations), key=lambda row: row["ImageID"]):
        labels = [names.get(row["LabelName"], "") for row in rows if float(row["Confidence"]) == 1]
        short, long = photo_of([label for label in labels if label]), narratives.get(image_id, "")
        if short or long:
            captions = tuple(caption for caption in (short, long) if caption)
            yield SourceRow(id=image_id, pictures=(picture_at(where, f"{image_id}.jpg"),), captions=captions)


def read_narratives(root: Path) -> dict[str, str]:
    """Descriptions by picture: of several, the last."""
    files = sorted(root.rglob("*captions*.jsonl")) + sorted(root.rglob("*localized_narratives*.jsonl"))
    return {row["image_id"]: row["caption"].strip() for path in files for row in json_lines(path)}


def photo_of(labels: Sequence[str]) -> str:
    """ "a photo with apple, fruit and table" for the first few different labels; empty for none."""
    words = list(dict.fromkeys(label.lower() for label in labels))[:MOST_LABELS]
    if not words:
        return ""
    return f"a photo with {words[0]}" if len(words) == 1 else f"a photo with {', '.join(words[:-1])} and {words[-1]}"
