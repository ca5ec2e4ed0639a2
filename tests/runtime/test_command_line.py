from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from maskbench.errors import ConfigError
from maskbench.runtime.command_line import explain, refuse_parts, swept_with_methods, usage


def refused(root: Path, *overrides: str, verb: str = "train") -> str:
    folder = str(root / "conf")
    with initialize_config_dir(version_base="1.3", config_dir=folder), pytest.raises(HydraException) as raised:
        compose(verb, list(overrides))
    return explain(raised.value, root / "conf")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.root=/photos/my data (1)", "data.root=/photos/my data (1) can't be read"),
        ("data.root=photos/[ab]", "'data.root=\"photos/[ab]\"'"),
        ("data.root=~/photos", f"~ is not expanded: write {Path.home()}"),
        ("seed", "seed: expected SETTING=VALUE"),
    ],
)
def test_what_hydra_cannot_read_is_told_with_what_it_can(root: Path, override: str, told: str) -> None:
    found = refused(root, override)
    assert told in found
    if "quotes" in found:
        advised = found.split("shell: '")[1].split("'.")[0]
        with initialize_config_dir(version_base="1.3", config_dir=str(root / "conf")):
            assert compose("train", ["data=coco", advised]).data.root == override.partition("=")[2]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("method=small/solo2", r"there is no method=small/solo2; did you mean small/solov?2? or small/solov?2?\?"),
        (
            "data=nowhere",
            "there is no data=nowhere; there are cityscapes, coco, coco2017, labelmaps, lvis, nuclei, sbd, shapes, "
            "shapes_hard",
        ),
        ("trainer.epochs=1", r"there is no setting trainer\.epochs; did you mean trainer\.max_epochs"),
        ("trainr.max_epochs=1", r"there is no setting trainr; did you mean trainer"),
        ("decoder=unet", r"there is no setting decoder; did you mean method/decoder\?"),
        ("trainer.max_epoch=3", r"there is no setting trainer\.max_epoch; did you mean trainer\.max_epochs\?$"),
        ("max_epochs=3", r"there is no setting max_epochs; did you mean trainer\.max_epochs\?"),
        ("max_epoch=3", r"there is no setting max_epoch; did you mean trainer\.max_epochs\?"),
        ("optim.lr=1e-3", r"there is no setting optim\.lr; did you mean optim\.optimiser\.lr\?"),
        ("lr=1e-3", r"there is no setting lr; did you mean optim\.optimiser\.lr\?"),
        ("data.rot=x", r"there is no setting data\.rot; did you mean data\.root\?$"),
        (
            "method.variant=mmdet",
            r"there is no setting method\.variant; the chosen method has none of that name, but .*, mask_rcnn, .* have",
        ),
        (
            "backbone.options.depth=1",
            r"there is no setting backbone\.options\.depth; there are backbone\.options\.layers",
        ),
        ("optim.curve.factor=3", r"there is no setting optim\.curve\.factor; optim\.curve holds no settings"),
        (
            "method/cluster=components",
            "the chosen method has no part cluster; method/cluster=... goes with discriminative$",
        ),
    ],
)
def test_what_is_not_there_is_told_with_what_is_near(root: Path, override: str, told: str) -> None:
    assert re.match(told, refused(root, override))


@pytest.mark.parametrize(
    ("verb", "override", "told"),
    [
        ("evaluate", "predicions=FILE", "there is no setting predicions; did you mean predictions or predict?"),
        ("evaluate", "data=cocoo", "there is no data=cocoo; did you mean coco or coco2017?"),
        ("benchmark", "stdy=runs/shapes", "there is no setting stdy; did you mean study?"),
        ("predict", "imags=photos", "there is no setting imags; did you mean images?"),
        ("convert", "method=mask_rnn", "there is no method=mask_rnn; did you mean mask_rcnn or "),
        ("report", "logger.mod=online", "there is no setting logger.mod; did you mean logger.mode?"),
    ],
)
def test_every_verb_tells_what_is_near(root: Path, verb: str, override: str, told: str) -> None:
    assert refused(root, override, verb=verb).startswith(told)


@pytest.mark.parametrize(
    ("method", "override", "told"),
    [
        ("flow_field", "method/decoder=unett", "there is no method/decoder=unett; did you mean unet?"),
        ("flow_field", "method/decoder/upsample=nearest", "the chosen method/decoder has no part upsample; "),
        ("flow_field", "method/decoder/upsample=nearest", "goes with fcn16s, fcn32s, fcn8s, segnet, unet"),
        ("mask_rcnn", "method/pool=roi_wrap", "there is no method/pool=roi_wrap; did you mean roi_warp or roi_pool?"),
    ],
)
def test_a_part_that_is_not_there_is_told_with_what_is_near(root: Path, method: str, override: str, told: str) -> None:
    assert told in refused(root, f"method={method}", override)


def test_a_part_of_a_part_is_told_by_its_place(root: Path) -> None:
    found = refused(root, "method=small/flow_field", "method/upsample=nearest")
    assert "goes with cascade_mask_rcnn, htc, mask_rcnn" in found
    assert found.endswith("where that is a part of a part it is method/decoder/upsample=...")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["method=decoder/unet"], r"method=decoder/unet: that is a part of methods .* by method/decoder=unet$"),
        (["method=decoder/upsample/nearest"], "by method/decoder/upsample=nearest$"),
        (["method=small/flow_field", "method.decoder=unet"], "a part is chosen with a slash, method/decoder=unet$"),
    ],
)
def test_a_part_in_the_wrong_place_is_refused(root: Path, overrides: list[str], told: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(root / "conf")):
        cfg = compose("train", overrides, return_hydra_config=True)
    with pytest.raises(ConfigError, match=told):
        refuse_parts(cfg, cfg.hydra.runtime.choices, root / "conf")


def test_parts_of_other_packages_are_parts_too(root: Path, tmp_path: Path) -> None:
    (tmp_path / "method" / "eye").mkdir(parents=True)
    (tmp_path / "method" / "theirs.yaml").write_text("defaults:\n  - eye: open\n  - _self_\n_target_: theirs.Method\n")
    (tmp_path / "method" / "eye" / "open.yaml").write_text("lid: up\n")
    searched = f"hydra.searchpath=[file://{tmp_path}]"
    with initialize_config_dir(version_base="1.3", config_dir=str(root / "conf")):
        cfg = compose("train", [searched, "method=eye/open"], return_hydra_config=True)
        with pytest.raises(ConfigError, match=r"choose a method, and its part by method/eye=open$"):
            refuse_parts(cfg, cfg.hydra.runtime.choices, root / "conf", tmp_path)
        with pytest.raises(HydraException) as raised:
            compose("train", [searched, "method=theirs", "method/eye=opne"])
        assert explain(raised.value, root / "conf", tmp_path) == "there is no method/eye=opne; did you mean open?"
        with pytest.raises(HydraException) as raised:
            compose("train", [searched, "method=solo", "method/eye=open"])
        assert explain(raised.value, root / "conf", tmp_path).endswith("method/eye=... goes with theirs")
    assert "  method/eye=open\n" in usage("train", root / "conf", tmp_path)


def test_nothing_else_is(root: Path) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(root / "conf")):
        for chosen in ("mask_rcnn", "small/htc", "crowded/discriminative"):
            cfg = compose("train", [f"method={chosen}"], return_hydra_config=True)
            refuse_parts(cfg, cfg.hydra.runtime.choices, root / "conf")
        cfg = compose("report", [], return_hydra_config=True)
        refuse_parts(cfg, cfg.hydra.runtime.choices, root / "conf")


@pytest.mark.parametrize("verb", ["train", "convert", "predict"])
def test_help_is_the_verbs_file_with_its_comments(root: Path, verb: str) -> None:
    text = usage(verb, root / "conf")
    assert text.startswith(f"usage: maskbench {verb} [SETTING=VALUE ...]")
    for line in (root / "conf" / f"{verb}.yaml").read_text().splitlines():
        assert line in text


def test_help_lists_the_choices_of_the_verbs_own_groups(root: Path) -> None:
    assert "  data=cityscapes|coco|coco2017|labelmaps|lvis|nuclei|sbd|shapes|shapes_hard\n" in usage(
        "train", root / "conf"
    )
    text = usage("train", root / "conf")
    assert re.search(r"^  method=cascade_mask_rcnn\|.*\|small/solov2\|", text, re.MULTILINE)
    assert re.search(r"^  method/decoder=deeplabv3\|.*\|unet$", text, re.MULTILINE)
    assert "decoder/unet" not in text
    assert "optim=" not in usage("convert", root / "conf")


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("method=a,b method.score=learned", "method=a,b method.score=choice(learned)"),
        ("-m method=a,b method/decoder=unet seed=0,1", "-m method=a,b method/decoder=choice(unet) seed=0,1"),
        ("method=a,b method.overlaps=[0.5,0.6]", "method=a,b method.overlaps=choice([0.5,0.6])"),
        ("method=a,b method.score=x,y data.batch=4", "method=a,b method.score=x,y data.batch=4"),
        ("method=a,b method.score=null", "method=a,b method.score=null,null"),
        ("method=a,b +method.score=", "method=a,b +method.score='',''"),
        ("method=a method.score=learned", "method=a method.score=learned"),
        ("method=a,b method.score=[", "method=a,b method.score=["),
    ],
)
def test_settings_of_swept_methods_are_swept_with_them(given: str, made: str) -> None:
    assert swept_with_methods(given.split()) == made.split()
