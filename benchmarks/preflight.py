"""What a preflight costs: CPU time a photo and peak memory, at a growing number of photos.

    python benchmarks/preflight.py [--images 2000] [--threads 2] [--size 128] [--root DIR]

Drawn shapes by default, or any folder in COCO format with `--root`. Each number of photos is looked through in a
process of its own, which has the peak of its memory to itself: all, half and a quarter of the training photos, from
copies of the annotation file that list so many. CPU seconds are those of the survey, of all of its threads; a machine
on which other programs run changes the wall clock, and them hardly. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from maskbench.data.preflight.layout import Layout, Split
from maskbench.data.preflight.survey import survey
from maskbench.data.shapes import draw

TRAIN = "annotations/instances_train.json"


def listed(root: Path, count: int, folder: Path) -> Path:
    """A copy of the training file that lists the first photos alone."""
    content = json.loads((root / TRAIN).read_bytes())
    content["images"] = content["images"][:count]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in ids]
    path = folder / f"{count}.json"
    path.write_text(json.dumps(content))
    return path


def measure(root: Path, annotations: Path, threads: int) -> dict[str, Any]:
    """One survey, in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    found = survey(Layout(root, (Split("train", os.fspath(annotations), "images"),)), threads)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally = found.tallies["train"]
    return {
        "photos": tally.photos,
        "objects": tally.classes.total(),
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "cpu_ms_a_photo": round(1000 * cpu / tally.photos, 3),
        "peak_mb": round(peak / 1024, 1),
        "libraries_mb": round(before / 1024, 1),
        "errors": found.count("error"),
        "warnings": found.count("warning"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    root = (asked.root or draw(images=asked.images, size=asked.size)).absolute()
    if asked.one:
        print(json.dumps(measure(root, asked.one, asked.threads)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        count = min(asked.images, len(json.loads((root / TRAIN).read_bytes())["images"]))
        for part in (4, 2, 1):
            one = listed(root, count // part, Path(folder))
            command = [sys.executable, __file__, "--root", root, "--one", one, "--threads", str(asked.threads)]
            ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(ended.stdout.splitlines()[-1]))
            print(" ".join(f"{name} {value}" for name, value in rows[-1].items()))
    last = rows[-1]
    print(json.dumps({"threads": asked.threads, "rows": rows, "cpu_seconds_of_10000": 10 * last["cpu_ms_a_photo"]}))


if __name__ == "__main__":
    main()
