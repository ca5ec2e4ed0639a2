"""Damaged files and settings of all kinds: whatever is handed in, nothing but errors of ours comes out.

    python tests/fuzz.py --inputs 100000 [--seed 1] [--only photos,checkpoints]

Hypothesis draws the damage and, where something else comes out, looks for the least that makes it come. A kind of input
is a few sound samples, a way to damage one of them, and the functions that read it. Some hundred inputs a second, since
all is done in this process, and nothing is trained.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import io
import json
import pickle
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from safetensors.torch import save_file

from junk import places
from maskbench.data.coco import CocoFile
from maskbench.data.photos import read_photo
from maskbench.errors import MaskbenchError
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matches import Matches, read_matches, write_matches
from maskbench.evaluation.results import read_predictions
from maskbench.ops.polygons import rasterise
from maskbench.ops.run_lengths import read_runs as read_run_lengths
from maskbench.runtime import rehearsal
from maskbench.runtime.checkpoints import BATCHES, NOTE, newest, read_checkpoint
from maskbench.runtime.command_line import explain
from maskbench.runtime.history import read_rows
from maskbench.runtime.run_folder import RunFolder, read_json
from maskbench.runtime.signatures import require_signatures
from maskbench.runtime.values import require
from maskbench.runtime.verb import config_folder
from maskbench.study.runs import read_runs
from maskbench.weights import file as weights_file
from maskbench.weights import reading

Feed = Callable[[Any], None]
"""Takes one input; raises what comes out of it."""


class Kind(NamedTuple):
    """A kind of input: what is drawn, and what makes a feed in a folder of its own."""

    drawn: st.SearchStrategy[Any]
    feed: Callable[[Path], Feed]


# Damage ---------------------------------------------------------------------------------------------------------------

Edit = tuple[str, int, int]

EDITS = st.lists(
    st.tuples(
        st.sampled_from(("bit", "byte", "insert", "delete", "cut", "repeat", "number")),
        st.integers(0, 2**20),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)


def damaged(content: bytes, edits: Sequence[Edit]) -> bytes:
    """The bytes after some edits, each at a place and by a value."""
    found = bytearray(content)
    for kind, where, value in edits:
        place = where % (len(found) + 1)
        if kind == "bit" and place < len(found):
            found[place] ^= 1 << value % 8
        elif kind == "byte" and place < len(found):
            found[place] = value
        elif kind == "insert":
            found[place:place] = bytes([value])
        elif kind == "delete":
            del found[place : place + 1 + value % 16]
        elif kind == "cut":
            del found[place:]
        elif kind == "repeat":
            found[place:place] = found[place : place + 1 + value]
        elif kind == "number":  # in the place of a length
            found[place : place + 4] = (value * 0x01010101).to_bytes(4, "little")
    return bytes(found)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.sampled_from((2**31, 2**63, 10**30, -(10**30), 1e9, 1e400, float("nan"), 0.5))
    | st.sampled_from(("", "a", "../x", "/x", "\0", "é", "ooooooo0", "0", "images", "??", "${a}", "!!x", "\ud800"))
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("size", "counts", "id")), inner),
    max_leaves=4,
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(("set", "delete", "copy")), st.integers(0, 2**16), JUNK), min_size=1, max_size=3
)


def changed(content: Any, changes: Sequence[tuple[str, int, Any]]) -> Any:
    """A nested value after some changes, each at one of its places."""
    found = copy.deepcopy(content)
    for kind, where, value in changes:
        inside = list(places(found))
        if not inside:
            break
        node, key = inside[where % len(inside)]
        if kind == "delete":
            del node[key]
        elif kind == "copy":
            node[key] = copy.deepcopy(inside[(where * 7) % len(inside)][0])
        else:
            node[key] = value
    return found


# Annotations ----------------------------------------------------------------------------------------------------------

ANNOTATIONS = {
    "images": [
        {"id": 11, "file_name": "a/b.png", "height": 20, "width": 30, "neg_category_ids": [4]},
        {"id": 7, "file_name": "é.png", "height": 20, "width": 30},
    ],
    "annotations": [
        {"id": 5, "image_id": 11, "category_id": 9, "segmentation": [[3, 2, 10, 2, 10, 8, 3, 8], [1, 1, 2, 1, 2, 2]]},
        {"id": 6, "image_id": 7, "category_id": 4, "segmentation": {"size": [20, 30], "counts": "P1`a0"}, "area": 2.5},
        {"id": 9, "image_id": 7, "category_id": 4, "segmentation": {"size": [20, 30], "counts": [0, 40, 560]}},
        {
            "id": 12,
            "image_id": 11,
            "category_id": 4,
            "bbox": [1, 2, 3, 4],
            "iscrowd": 1,
            "segmentation": [[0, 0, 9, 0, 9, 9]],
        },
    ],
    "categories": [{"id": 9, "name": "star", "frequency": "r"}, {"id": 4, "name": "disc"}],
}


def feed_annotations(folder: Path) -> Feed:
    path = folder / "instances.json"

    def feed(drawn: tuple[Any, list[Edit] | None]) -> None:
        changes, edits = drawn
        text = json.dumps(changed(ANNOTATIONS, changes)).encode("utf-8", "surrogatepass")
        path.write_bytes(damaged(text, edits) if edits else text)
        for read in (_as_data, _as_truth):
            with _ours():
                read(path)

    return feed


def _as_data(path: Path) -> None:
    file = CocoFile(path)
    for image_id in file.records:
        file.counts(image_id)
        file.annotations(image_id)


def _as_truth(path: Path) -> None:
    truth = GroundTruth(path)
    for geometry in ("segm", "bbox"):
        truth.annotations(geometry)


# Run lengths ----------------------------------------------------------------------------------------------------------

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
COUNTS = st.one_of(
    st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30),
    st.text(max_size=8),
    st.binary(max_size=20),
    st.lists(st.integers(-5, 200) | JUNK, max_size=8),
    JUNK,
)
POLYGONS = st.lists(
    st.lists(
        st.floats(-1e3, 1e3) | st.integers(-50, 50) | st.sampled_from((1e30, float("nan"), "3", None)), max_size=12
    )
    | JUNK,
    max_size=3,
)


def feed_run_lengths(folder: Path) -> Feed:
    def feed(drawn: tuple[Any, Any, tuple[int, int]]) -> None:
        counts, polygons, size = drawn
        with suppress(ValueError):  # as both promise; who reads a file says which
            runs = read_run_lengths(counts, size)
            assert runs.sum() == size[0] * size[1]
            assert (runs >= 0).all()
        with suppress(ValueError, TypeError):
            rasterise(polygons, size)

    return feed


# Photos ---------------------------------------------------------------------------------------------------------------


def _photos() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    colour, grey = Image.fromarray(noise), Image.fromarray(noise[..., 0])
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    saved = [
        *((colour, kind, {}) for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "TGA", "PCX", "SGI")),
        *((colour, "TIFF", {"compression": kind}) for kind in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour.convert("RGBA"), "PNG", {}),
        (grey, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (deep, "PNG", {}),
        (deep, "TIFF", {}),
    ]
    found = []
    for image, kind, options in saved:
        with io.BytesIO() as file:
            image.save(file, kind, **options)
            found.append(file.getvalue())
    return found


def feed_photos(folder: Path) -> Feed:
    samples, path = _photos(), folder / "photo.png"

    def feed(drawn: tuple[int, list[Edit]]) -> None:
        which, edits = drawn
        path.write_bytes(damaged(samples[which % len(samples)], edits))
        photo = read_photo(path)
        assert photo.dtype == np.uint8
        assert photo.ndim == 3

    return feed


# Checkpoints and weights ----------------------------------------------------------------------------------------------


class _Sample(NamedTuple):
    name: str
    content: bytes


def _checkpoints(folder: Path) -> list[_Sample]:
    weights = {"head.weight": torch.randn(3, 2), "head.bias": torch.zeros(3, dtype=torch.float16)}
    content: dict[str, Any] = {"state_dict": weights, NOTE: {"classes": ["a"]}, "epoch": 3, BATCHES: 0}
    torch.save(content, folder / "new")
    torch.save(content, folder / "old", _use_new_zipfile_serialization=False)
    arrays = {"model": {name: value.numpy() for name, value in weights.items()}}
    note = {"backbone": {"name": "resnet18"}, "method": None, "left_out": [], "size": [800, 1333]}
    note |= {"classes": ["a"], "category_ids": [1]}
    save_file(weights, folder / "converted", metadata={weights_file.NOTE: json.dumps(note)})
    samples = [(name, (folder / name).read_bytes()) for name in ("new", "old", "converted")]
    names = {"new": "last.ckpt", "old": "last.ckpt", "converted": "weights.safetensors"}
    return [
        *(_Sample(names[name], content) for name, content in samples),
        _Sample("model.pkl", pickle.dumps(arrays, protocol=2)),
    ]


def feed_checkpoints(folder: Path) -> Feed:
    samples = _checkpoints(folder)

    def feed(drawn: tuple[int, list[Edit], bool]) -> None:
        which, edits, inside = drawn
        name, content = samples[which % len(samples)]
        path = folder / name
        path.write_bytes(_inside(content, edits) if inside and which % len(samples) == 0 else damaged(content, edits))
        for read in (reading.read, weights_file.load, read_checkpoint, lambda path: newest(path.parent)):
            with _ours():
                read(path)
        path.unlink()

    return feed


def _inside(archive: bytes, edits: Sequence[Edit]) -> bytes:
    """An archive whose pickle is damaged and whose sums are right, as somebody may make it."""
    with zipfile.ZipFile(io.BytesIO(archive)) as whole, io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as written:
            for entry in whole.infolist():
                content = whole.read(entry)
                written.writestr(
                    entry.filename, damaged(content, edits) if entry.filename.endswith(".pkl") else content
                )
        return file.getvalue()


# What a run's folder holds --------------------------------------------------------------------------------------------

RUN = "solov2-small-seed0-0123abcd"
KEYED = {"key": "0123456789", "fields": {"seed": 0, "backbone.name": "resnet18"}}
RESULT = {
    "image_id": 7,
    "category_id": 3,
    "segmentation": {"size": [4, 4], "counts": "04<"},
    "score": 0.5,
    "box": [1.0, 2, 3, 4],
}
FILES: dict[str, Any] = {
    "config.yaml": {"method": {"_target_": "maskbench.methods.solov2.SOLOv2", "grids": [4, 2]}, "seed": 0, "lr": 1e-5},
    "status.json": {"state": "done", "attempts": 2, "reason": None, "pid": 3, "host": "here", "earlier": ["cut"]},
    "metrics.json": {"segm": {"AP": 0.5}, "method": "solov2-small", "parts": {"count": 1}},
    "fairness.json": dict.fromkeys(("footing", "operating_point", "method", "environment"), KEYED),
    "data.json": {"fingerprint": "0123", "most_per_image": 3},
    "speed.json": {"fps": 3.5},
    "history.csv": "epoch,step,tune/AP\n0,2,0.25\n1,4,\n",
    "predictions.json": [RESULT, RESULT],
    "predictions.json.gz": [RESULT],
    "matches.npz": None,
    "trials.json": [RUN],
}


def feed_runs(folder: Path) -> Feed:
    study, run = folder, folder / RUN
    run.mkdir()
    sound = {name: _stored(name, content) for name, content in FILES.items()}
    places = {name: (study if name == "trials.json" else run) / name for name in sound}
    for name, content in sound.items():
        places[name].write_bytes(content)

    def feed(drawn: tuple[int, list[Edit], Any]) -> None:
        which, edits, changes = drawn
        name = list(sound)[which % len(sound)]
        plain = name.endswith((".json", ".yaml"))
        content = _stored(name, changed(FILES[name], changes)) if plain and changes else damaged(sound[name], edits)
        places[name].write_bytes(content)
        for read in _readers(name):
            with _ours():
                read(places[name])
        places[name].write_bytes(sound[name])

    return feed


def _readers(name: str) -> list[Callable[[Path], Any]]:
    if name.startswith("predictions"):
        return [read_predictions]
    if name == "matches.npz":
        return [read_matches]
    if name == "trials.json":
        return [lambda path: read_runs(path.parent)]
    own: dict[str, Callable[[Path], Any]] = {
        "config.yaml": lambda path: (RunFolder(path.parent).read_config(), read_runs(path.parent.parent)[0].config),
        "history.csv": read_rows,
    }
    return [own.get(name, read_json), lambda path: read_runs(path.parent.parent)]


def _stored(name: str, content: Any) -> bytes:
    if name == "matches.npz":  # of one detection that is right, and one truth, in one stratum
        one, yes = np.zeros(1, np.int64), np.ones((1, 1, 10), bool)
        rest = (one + 0.5, one, yes, ~yes, one + 0.9, one, one, yes[..., 0])
        with tempfile.TemporaryDirectory() as folder:
            write_matches(Path(folder) / name, Matches((7,), (3,), ("cell",), ("all",), one, one, *rest))
            return (Path(folder) / name).read_bytes()
    if name.endswith(".csv"):
        return content.encode()
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    return gzip.compress(text) if name.endswith(".gz") else text


# Settings -------------------------------------------------------------------------------------------------------------

SETTING = st.sampled_from(
    (
        "seed",
        "threads",
        "study",
        "runs",
        "checkpoint",
        "speed.images",
        "trainer.max_epochs",
        "trainer.precision",
        "trainer",
        "data",
        "data.batch",
        "data.root",
        "data.root.images",
        "data.tune_share",
        "method",
        "method.grids",
        "method.ranges",
        "method.width",
        "method.sigma",
        "optim.optimiser.lr",
        "optim.curve",
        "optim",
        "transforms.train.scale",
        "transforms.train.augment",
        "evaluation.iou_types",
        "evaluation.point.max_instances",
        "protocol.lr_factors",
        "backbone.strides",
        "logger",
        "hydra.launcher.slots",
        "method/decoder",
    )
)
VALUE = st.one_of(
    st.sampled_from(
        ("", "null", "true", "x", "1", "-1", "0.5", "1e-3", "[]", "[1,2]", "[[1,2],[3,4]]", "{}", "{a:1}", "[x]")
    ),
    st.sampled_from(
        ("${seed}", "${nothing}", "${oc.env:HOME}", "???", "~/x", "a b", "choice(1,2)", "1,2", "inf", "nan", "'x'")
    ),
    st.text(max_size=6),
)
WORD = st.tuples(st.sampled_from(("", "+", "++", "~", "-", " ")), SETTING, EDITS | st.none(), VALUE)


def feed_settings(folder: Path) -> Feed:
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        composed = compose("train", ["data.root.images=16", "logger=none"], return_hydra_config=True)
    parser = OverridesParser.create()

    def feed(drawn: tuple[str, str, list[Edit] | None, str]) -> None:
        sign, setting, edits, value = drawn
        name = damaged(setting.encode(), edits).decode(errors="replace") if edits else setting
        cfg = copy.deepcopy(composed)
        try:
            override = parser.parse_override(f"{sign}{name}={value}")
            ConfigLoaderImpl._apply_overrides_to_config([override], cfg)
            del cfg["hydra"]
            require(cfg, rehearsal.VALUES)
            require_signatures(cfg)
            rehearsal._require_ranges(cfg)
        except HydraException as error:
            explain(error, config_folder())
        except OmegaConfBaseException:  # which a verb tells in a line, too
            pass

    return feed


# Feeding --------------------------------------------------------------------------------------------------------------

KINDS: dict[str, Kind] = {
    "annotations": Kind(st.tuples(CHANGES, st.none() | EDITS), feed_annotations),
    "run lengths": Kind(st.tuples(COUNTS, POLYGONS, SIZES), feed_run_lengths),
    "photos": Kind(st.tuples(st.integers(0, 2**16), EDITS), feed_photos),
    "checkpoints": Kind(st.tuples(st.integers(0, 2**16), EDITS, st.booleans()), feed_checkpoints),
    "runs": Kind(st.tuples(st.integers(0, 2**16), EDITS, st.none() | CHANGES), feed_runs),
    "settings": Kind(WORD, feed_settings),
}


class _ours:
    """Lets nothing but errors of ours end a block in silence, and none of them that comes of memory that ran out."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, MaskbenchError):
            return False
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MemoryError):
            cause = cause.__cause__
        return cause is None


@contextmanager
def little_memory() -> Iterator[None]:
    """This process may take 4 GB more, so that a few bytes that ask for all of it are found and end nothing else."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = Path("/proc/self/statm")
    if taken.exists():
        now = int(taken.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 4 * 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def feed_many(name: str, inputs: int, folder: Path, *, number: int | None = None) -> None:
    """Draw so many inputs of a kind; the same ones every time where no `number` chooses others.

    Raises:
        BaseException: whatever an input made come out that is no error of ours, for the least such input.
    """
    kind = KINDS[name]
    folder.mkdir(parents=True, exist_ok=True)
    feed = kind.feed(folder)

    @settings(
        max_examples=inputs,
        derandomize=number is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(kind.drawn)
    def each(drawn: Any) -> None:
        with warnings.catch_warnings(), _ours():
            warnings.simplefilter("ignore")
            feed(drawn)

    with little_memory():
        (each if number is None else seed(number)(each))()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="in all, shared out among the kinds")
    parser.add_argument("--seed", type=int, default=0, help="other inputs")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, with commas between them")
    given_words = parser.parse_args()
    names = given_words.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            began = time.monotonic()
            count = -(-given_words.inputs // len(names))
            feed_many(name, count, Path(folder) / name, number=given_words.seed)
            print(f"{name}: {count} inputs, {time.monotonic() - began:.0f} s, nothing but errors of ours", flush=True)


if __name__ == "__main__":
    sys.exit(main())
