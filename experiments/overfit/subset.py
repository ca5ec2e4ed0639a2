"""Write the annotation file of the first N photographs, by id, that have objects and no crowd.

python experiments/overfit/subset.py SOURCE.json OUT.json [N]
"""

import json
import sys
from pathlib import Path


def subset(truth: dict, count: int) -> dict:
    """The first `count` images of a COCO annotation file that have objects and no crowd."""
    crowded = {note["image_id"] for note in truth["annotations"] if note["iscrowd"]}
    wanted = {note["image_id"] for note in truth["annotations"]} - crowded
    chosen = sorted(wanted)[:count]
    return {
        **truth,
        "images": [image for image in truth["images"] if image["id"] in chosen],
        "annotations": [note for note in truth["annotations"] if note["image_id"] in chosen],
    }


if __name__ == "__main__":
    source, out, *rest = sys.argv[1:]
    truth = json.loads(Path(source).read_text(encoding="utf-8"))
    Path(out).write_text(json.dumps(subset(truth, int(rest[0]) if rest else 8)), encoding="utf-8")
