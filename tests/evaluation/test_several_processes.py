"""Two processes that share an evaluation get the numbers of one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch.distributed

from maskbench.evaluation.average_precision import AveragePrecision

FOUND = {
    7: [(0, (10, 10, 10, 10), 0.9), (0, (0, 30, 4, 4), 0.8)],
    11: [(0, (1, 0, 30, 30), 0.7)],
    13: [],
    17: [(0, (5, 6, 7, 7), 0.6)],
    19: [(0, (20, 20, 9, 9), 0.5)],
}
TRUTH = [(7, 3, (10, 10, 10, 10)), (11, 3, (0, 0, 30, 30)), (13, 3, (3, 3, 9, 9)), (17, 3, (5, 5, 7, 7))]


@contextmanager
def second_process(folder: Path, annotations: Path, shard: list[int]) -> Iterator[subprocess.Popen]:
    """This process is the first of two, the other one predicts `shard`."""
    store = folder / "store"
    script = Path(__file__).with_name("one_rank.py")
    content = json.dumps([(image, FOUND[image]) for image in shard])
    command = [sys.executable, str(script), str(store), str(annotations), content]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{store}", rank=0, world_size=2, timeout=timedelta(seconds=100)
            )
            yield other
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
            if sys.exc_info()[0]:
                other.kill()


def test_uneven_shards_with_a_repeated_image_count_as_one_process(tmp_path: Path, annotation_file, predict):
    annotations = annotation_file(TRUTH, images=tuple(FOUND))
    alone, shared = AveragePrecision(annotations, (3,)), AveragePrecision(annotations, (3,))
    alone.update(*zip(*(predict(image, FOUND[image]) for image in FOUND), strict=True))
    expected, results = alone.compute(), alone.results()
    assert 0 < expected["segm"]["AP"] < 1
    # four images here, two there: a sampler that pads has given the second process an image of the first
    shared.update(*zip(*(predict(image, FOUND[image]) for image in (19, 7, 17, 13)), strict=True))
    with second_process(tmp_path, annotations, shard=[11, 7]) as other:
        numbers, gathered = shared.compute(), shared.results()
        there = json.loads(other.communicate(timeout=100)[0].splitlines()[-1])
    assert numbers == there["numbers"] == expected
    assert gathered == there["results"] == results
    assert [image for image, _ in shared.records] == [19, 7, 17, 13], "each keeps its own images for what may follow"
