from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from torch import Tensor

from maskbench.benchmark import benchmark
from maskbench.convert import convert
from maskbench.errors import ConfigError
from maskbench.evaluate import evaluate
from maskbench.export import export
from maskbench.fit import fit
from maskbench.predict import predict
from maskbench.preflight import preflight
from maskbench.report import report
from maskbench.runtime.values import fits, in_words, require, require_one
from trained import call

NODE = {"_target_": "somewhere.Thing"}


@pytest.mark.parametrize(
    ("hint", "fitting", "others"),
    [
        (int, [1, -3], [1.0, "1", True, None, [1]]),
        (float, [1, 2.5], ["x", False, None]),
        (bool, [True], [1, "true", None]),
        (str, ["", "a"], [1, None, ["a"]]),
        (Path, ["/a"], [1, None]),
        (int | None, [None, 3], ["3", 0.5]),
        (Optional[float], [None, 3], ["3"]),  # noqa: UP045  (as other packages write it)
        (Literal["a", "b"], ["a"], ["c", None]),
        (Sequence[int], [[], [1, 2]], [1, "ab", [1, "x"], None]),
        (tuple[float, float], [[1, 0.5]], [[1], [1, 2, 3], 1]),
        (tuple[int, ...], [[], [1, 2, 3]], [["x"]]),
        (Sequence[tuple[int, int]], [[[1, 2]]], [[1, 2]]),
        (Mapping[str, int], [{}, {"a": 1}], [[1], "a", None]),
        (Union[float, Tensor], [1e-3], [""]),  # noqa: UP007  (likewise)
        (Callable[[], int], [], ["print", 1, None]),
        (Tensor, [], ["x", 1, None, [1.0]]),
        (Any, [1, "x", None, [1]], []),
    ],
)
def test_values_are_what_hints_say(hint: Any, fitting: list[Any], others: list[Any]) -> None:
    assert all(fits(value, hint) for value in [*fitting, NODE])
    assert not [value for value in others if fits(value, hint)]


def test_a_hint_in_words() -> None:
    assert in_words(int | None) == "a whole number or null"
    assert in_words(Literal["a", 3]) == "one of a, 3"
    assert in_words(Sequence[float]) == "a list, each a number"
    assert in_words(tuple[float, float]) == "a list of 2"
    assert in_words(str | Path) == "text or a path"


def test_what_is_missing_or_of_another_kind_is_told_by_its_place() -> None:
    cfg = OmegaConf.create({"speed": {"images": "x", "sizes": [1, "y"]}, "study": 2024, "seed": None})
    with pytest.raises(ConfigError, match=r"^speed\.images=x: expected a whole number$"):
        require(cfg, {"speed.images": int})
    with pytest.raises(ConfigError, match=r"^speed\.sizes=\[1, \"y\"\]: expected a list, each a whole number"):
        require(cfg, {"speed.sizes": Sequence[int]})
    with pytest.raises(ConfigError, match=r"^study=2024: expected text \(in quotes of its own: 'study=\"2024\"'\)"):
        require(cfg, {"study": str})
    with pytest.raises(ConfigError, match=r"^speed=\{.*\}: expected a list, each text$"):
        require(cfg, {"speed": Sequence[str]})
    with pytest.raises(ConfigError, match=r"^seed=null: expected true or false$"):
        require(cfg, {"seed": bool})
    with pytest.raises(ConfigError, match=r"^on=true: expected text or null \(in quotes of its own: 'on=\"true\"'\)"):
        require(OmegaConf.create({"on": True}), {"on": str | None})
    with pytest.raises(ConfigError, match=r"^runs is missing"):
        require(cfg, {"runs": str})
    with pytest.raises(MissingMandatoryValue):  # which a verb says in its own words
        require(OmegaConf.create({"source": "???"}), {"source": str})
    require(cfg, {"seed": int | None, "speed": Any})


def test_one_of_some_settings_is_given() -> None:
    ways = {"run": "run=DIR", "study": "study=DIR", "compare": "compare=[DIR,...]"}
    cfg = OmegaConf.create({"run": None, "study": "some", "compare": []})
    assert require_one(cfg, ways, "look at") == "study"
    every = r"to look at: expected one of run=DIR, study=DIR and compare=\[DIR,\.\.\.\]$"
    with pytest.raises(ConfigError, match=rf"^found run=\.\.\. and study=\.\.\. {every}"):
        require_one(OmegaConf.merge(cfg, {"run": "one"}), ways, "look at")
    with pytest.raises(ConfigError, match=rf"^found nothing {every}"):
        require_one(OmegaConf.merge(cfg, {"study": None}), ways, "look at")


@pytest.mark.parametrize(
    ("verb", "word"),
    [
        (predict, "compare=DIR"),
        (predict, "save=overlays"),
        (predict, "score=abc"),
        (export, "size=640"),
        (export, "batch=two"),
        (export, "format=tflite"),
        (fit, "memory_gb=24GB"),
        (fit, "memory_gb=0"),
        (preflight, "out=1"),
        (evaluate, "iou_type=masks"),
        (evaluate, "threshold=x"),
        (evaluate, "predict=1"),
        (benchmark, "images=x"),
        (benchmark, "again=no way"),
        (report, "study=2024"),
        (convert, "short=x"),
    ],
)
def test_every_verb_looks_at_its_own(verb: Callable, word: str) -> None:
    needed = {
        predict: ["run=a", "images=b"],
        export: ["run=a", "out=b.onnx"],
        fit: ["out=experiment/mine.yaml"],
        report: ["study=runs/some"],
        convert: ["source=a", "layout=detectron2", "out=b.safetensors"],
    }
    with pytest.raises(ConfigError, match=f"^{word}: expected "):
        call(verb, *needed.get(verb, ()), word)
