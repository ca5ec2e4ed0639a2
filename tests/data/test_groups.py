from __future__ import annotations

import pytest

from maskbench.data.groups import Grouping
from maskbench.errors import ConfigError

IMAGE = {"id": 7, "file_name": "p12/left_03.png", "patient": "ann", "video_id": 4, "tags": ["x"]}


@pytest.mark.parametrize(
    ("by", "group"),
    [("patient", "ann"), ("video_id", "4"), (r"^([^/]+)/", "p12"), (r"(p\d)\d/(left|right)", "p1/left")],
)
def test_a_field_or_a_part_of_the_name_tells_the_group(by: str, group: str) -> None:
    assert Grouping(by)(IMAGE) == group


@pytest.mark.parametrize(
    ("by", "told"),
    [
        ("slide", "no `slide` .* it has id, file_name, patient, video_id, tags"),
        ("tags", r"no `tags` .* found \['x'\]"),
        (r"_(\d{4})", r"`p12/left_03.png` does not match data.group_by=_\(\\d\{4\}\)"),
    ],
)
def test_a_photo_without_a_group_is_told(by: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Grouping(by)(IMAGE)


@pytest.mark.parametrize(
    ("by", "told"), [("(", "is no regular expression"), (r"\(x", "has no group"), ("(?:x)", "group")]
)
def test_an_expression_that_tells_nothing_apart_is_refused(by: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Grouping(by)
