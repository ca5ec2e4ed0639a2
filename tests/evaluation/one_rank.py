"""The second of two processes that share an evaluation: `one_rank.py STORE ANNOTATIONS SHARD`.

SHARD is json: the images it predicts, as (image id, objects as (label, box, score)). Prints what it computes.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta

import torch
import torch.distributed

from maskbench.evaluation.average_precision import AveragePrecision
from maskbench.structures import Frame, Instances, Masks


def instances(objects: list) -> Instances:
    masks = torch.zeros((len(objects), 40, 40), dtype=torch.bool)
    for mask, (_, (x, y, width, height), _) in zip(masks, objects, strict=True):
        mask[y : y + height, x : x + width] = True
    boxes = [[x, y, x + width, y + height] for _, (x, y, width, height), _ in objects]
    return Instances(
        masks=Masks(masks),
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([label for label, _, _ in objects], dtype=torch.long),
        scores=torch.tensor([score for _, _, score in objects]),
    )


def main(store: str, annotations: str, shard: list) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=1, world_size=2, timeout=timedelta(seconds=100)
    )
    metric = AveragePrecision(annotations, (3,))
    for image, objects in shard:
        metric.update([instances(objects)], [Frame(image, (40, 40), (40, 40))])
    print(json.dumps({"numbers": metric.compute(), "results": metric.results()}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
