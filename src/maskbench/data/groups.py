"""Which photos belong together, as those of a patient or a video do: no such group may lie in two splits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from maskbench.errors import ConfigError


@dataclass(frozen=True)
class Grouping:
    """Tells the group of a photo by its record in the annotation file.

    Args:
        by: the name of a field of the record (`patient`, `video_id`); or, where it has a parenthesis, a regular
            expression that is searched in `file_name`, whose groups together are the name: `^(.+)_frame[0-9]+`.

    Raises:
        ConfigError: the expression can't be read or has no group.
    """

    by: str

    def __post_init__(self) -> None:
        _ = self._pattern

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        """None where a field tells."""
        if "(" not in self.by:
            return None
        try:
            pattern = re.compile(self.by)
        except re.error as error:
            raise ConfigError(f"data.group_by={self.by}: is no regular expression ({error})") from error
        if not pattern.groups:
            raise ConfigError(
                f"data.group_by={self.by}: has no group; what tells photos apart stands in parentheses, as in "
                "^(.+)_frame[0-9]+"
            )
        return pattern

    def __call__(self, image: Mapping[str, Any]) -> str:
        """The group of an image record.

        Raises:
            ValueError: it has none; the message says why.
        """
        if self._pattern is not None:
            found = self._pattern.search(image["file_name"])
            if not found:
                raise ValueError(f"`{image['file_name']}` does not match data.group_by={self.by}")
            return "/".join(part or "" for part in found.groups())
        value = image.get(self.by)
        if not isinstance(value, str | int):
            has = f"it has {', '.join(image)}" if self.by not in image else f"found {value!r:.60}"
            raise ValueError(f"no `{self.by}` (data.group_by) tells its group: {has}")
        return str(value)
