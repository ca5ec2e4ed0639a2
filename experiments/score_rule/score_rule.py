"""The AP of identical masks by the rule that scores them: python experiments/score_rule/score_rule.py runs/STUDY

Every finished run of a bottom-up method in the folder of a study looks at its test split once, and what it finds is
scored by each rule. The learned rule is that of a run which has learnt it (`method.score=learned`). Prints a markdown
table, AP × 100; the last line is JSON, 0 to 1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from maskbench.data.datamodule import CocoDataModule
from maskbench.evaluation.average_precision import AveragePrecision
from maskbench.methods.bottom_up import BottomUp
from maskbench.ops.grouping import SCORES, learned
from maskbench.runtime.run_folder import RunFolder, load


def ap_by_rule(method: BottomUp, data: CocoDataModule) -> Mapping[str, float]:
    """Mask AP on test; the network is run once an image, and all that differs is the rule."""
    rules = [rule for rule in SCORES if method.quality is not None or rule != learned.__name__]
    found = {
        rule: AveragePrecision(
            data.annotations("test"),
            data.category_ids,
            iou_types=("segm",),
            image_ids=data.image_ids("test"),
            max_instances=method.point.max_instances,
        )
        for rule in rules
    }
    method.eval()
    with torch.inference_mode():
        for batch in data.test_dataloader():
            raw = method(method.prepare(batch))
            for rule, ap in found.items():
                method.score = rule
                ap.update(method.instances(raw, batch.frames), batch.frames)
    return {rule: ap.compute()["segm"]["AP"] for rule, ap in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    numbers = {}
    print(f"| run | {' | '.join(SCORES)} |\n| :-- |{' --: |' * len(SCORES)}")
    for path in sorted(path.parent for path in chosen.study.glob("*/metrics.json")):
        _, data, method = load(RunFolder.existing(path).path)
        if not isinstance(method, BottomUp):
            continue
        numbers[path.name] = ap = ap_by_rule(method, data)
        cells = [f"{100 * ap[rule]:.1f}" if rule in ap else "–" for rule in SCORES]
        print(f"| {path.name} | {' | '.join(cells)} |", flush=True)
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
