from __future__ import annotations

from typing import Any

from maskbench.study.labels import labels
from maskbench.study.runs import read_runs


def named(writer: Any, *settings: dict[str, Any]) -> set[str]:
    for method in settings:
        folder = writer("solov2-small", method={"_target_": "maskbench.methods.solov2.SOLOv2"} | method)
    return set(labels(read_runs(folder.parent)))


def part(name: str, **settings: Any) -> dict[str, Any]:
    return {"_target_": f"maskbench.parts.{name}", **settings}


def test_one_of_a_method_is_called_by_the_method(writer: Any) -> None:
    assert named(writer, {"sigma": 0.2}) == {"solov2-small"}


def test_a_part_of_another_class_is_called_by_the_class_alone(writer: Any) -> None:
    pools = [{"pool": part("Align", sampling=0, reduce="average")}, {"pool": part("Pool")}]
    assert named(writer, *pools) == {"solov2-small (pool Align)", "solov2-small (pool Pool)"}


def test_two_of_one_class_are_called_by_what_differs(writer: Any) -> None:
    decoders = [
        {"decoder": part("fcn", finest=8, width=48, up=part("Bilinear"))},
        {"decoder": part("fcn", finest=16, width=48, up=part("Bilinear"))},
        {"decoder": part("unet", width=48, up=part("Transposed"))},
    ]
    assert named(writer, *decoders) == {
        "solov2-small (decoder fcn, finest 8)",
        "solov2-small (decoder fcn, finest 16)",
        "solov2-small (decoder unet)",
    }


def test_a_part_in_a_part_is_named_where_the_outer_one_is_the_same(writer: Any) -> None:
    decoders = [{"decoder": part("unet", up=part(up, size=size))} for up, size in (("Nearest", 2), ("Transposed", 4))]
    assert named(writer, *decoders) == {"solov2-small (up Nearest)", "solov2-small (up Transposed)"}


def test_a_part_that_one_lacks_is_named(writer: Any) -> None:
    found = named(writer, {"refine": None}, {"refine": part("Points", steps=3)})
    assert found == {"solov2-small", "solov2-small (refine Points)"}


def test_classes_of_one_name_are_told_apart(writer: Any) -> None:
    pools = [{"pool": {"_target_": f"{package}.Align"}} for package in ("one", "another")]
    found = named(writer, *pools)
    assert len(found) == 2
    assert all(label.endswith(", pool Align)") for label in found)


def test_numbers_and_lists_are_named_with_their_setting(writer: Any) -> None:
    found = named(writer, {"overlaps": [0.5], "sigma": 1.0}, {"overlaps": [0.5, 0.6], "sigma": 1.0})
    assert found == {"solov2-small (overlaps [0.5])", "solov2-small (overlaps [0.5, 0.6])"}


def test_what_stands_in_two_tables_is_told_apart_in_neither(writer: Any) -> None:
    """Fitted settings differ from the papers' in all their numbers, which would be long names."""
    folders = [
        writer("solov2-small", method={"grids": grids}, **fit)
        for grids, fit in (([40, 36], {}), ([52, 40], {"fit": True}), ([48, 40], {"fit": True}))
    ]
    assert labels(read_runs(folders[0].parent)) == [
        {40: "solov2-small", 52: "solov2-small (grids [52, 40])", 48: "solov2-small (grids [48, 40])"}[first]
        for first in (run.keys["method"].fields["method.grids"][0] for run in read_runs(folders[0].parent))
    ]
