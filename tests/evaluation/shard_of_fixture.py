"""One of several processes that score a published fixture: `shard_of_fixture.py STORE RANK ANNOTATIONS RESULTS`.

Shards are of unequal size, and the last process has an image of the first one again, as a sampler that pads would give
it. Prints the numbers as JSON.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta

import pycocotools.mask as rle_codec
import torch
import torch.distributed

from maskbench.evaluation.average_precision import AveragePrecision
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.results import Result, read_predictions
from maskbench.structures import RLE, Frame, Instances, Masks, Size

BOUNDS = (0.0, 0.1, 0.4, 1.0)
"""Shares of the images: of three processes."""


def instances(results: list[Result], labels: dict[int, int], size: Size) -> Instances:
    """COCO results of one image as a method would have found them; their boxes are those of their masks."""
    masks = [RLE(size=list(size), counts=result["segmentation"]["counts"].encode()) for result in results]
    boxes = torch.from_numpy(rle_codec.toBbox(masks)).float() if masks else torch.zeros((0, 4))
    boxes[:, 2:] += boxes[:, :2]
    return Instances(
        Masks(masks, size),
        boxes,
        torch.tensor([labels[result["category_id"]] for result in results], dtype=torch.long),
        torch.tensor([result["score"] for result in results], dtype=torch.float64),
    )


def main(store: str, rank: int, annotations: str, file: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=3, timeout=timedelta(seconds=100)
    )
    truth, found = GroundTruth(annotations), {}
    for result in read_predictions(file):
        found.setdefault(result["image_id"], []).append(result)
    images = sorted(truth.images)
    begin, end = (round(len(images) * BOUNDS[place]) for place in (rank, rank + 1))
    mine = images[begin:end] + (images[:1] if rank == 2 else [])
    metric = AveragePrecision(annotations, list(truth.classes), iou_types=("segm",))
    labels = {category: label for label, category in enumerate(truth.classes)}
    for image in mine:
        size = (truth.images[image]["height"], truth.images[image]["width"])
        metric.update([instances(found.get(image, []), labels, size)], [Frame(image, size, size)])
    print(json.dumps({"images": len(mine), "numbers": metric.compute()["segm"]}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
