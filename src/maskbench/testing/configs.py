"""The configs of a package's methods: which there are, and what one of them becomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maskbench.errors import ConfigError
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_method, composed
from maskbench.runtime.searchpath import folder_of
from maskbench.runtime.verb import config_folder
from maskbench.testing.discs import CLASSES


@dataclass(frozen=True)
class Configs:
    """What lies in the folder `method` of a package's configs.

    Args:
        place: of the configs, as `hydra.searchpath` has it.
        words: of a command line, by which methods are built beside `method=…`.
    """

    place: str
    words: tuple[str, ...] = ()

    @cached_property
    def folder(self) -> Path:
        """The methods' own.

        Raises:
            ConfigError: there is no such place.
        """
        return folder_of(self.place) / "method"

    @cached_property
    def papers(self) -> list[str]:
        """The methods: files that say a class.

        Raises:
            ConfigError: there are none.
        """
        papers = self._named(path for path in self.folder.glob("*.yaml") if "_target_" in self.stated(path))
        if not papers:
            raise ConfigError(f"{self.folder}: expected a file NAME.yaml with a _target_ for each method, found none")
        return papers

    @cached_property
    def variants(self) -> dict[str, str]:
        """The config that each variant of a method starts from."""
        names = self._named(self.folder.glob("**/*.yaml"))
        origins = {name: self._origin(name) for name in names if name not in self.papers}
        return {name: origin for name, origin in origins.items() if origin}

    @cached_property
    def smallest(self) -> list[str]:
        """The small variant of each method that has one: the promises are the same, and tests of it quick."""
        return [f"small/{name}" if f"small/{name}" in self.variants else name for name in self.papers]

    @cached_property
    def hidden(self) -> list[str]:
        """Files in whose place Hydra takes ours, among which it looks first."""
        own, ours = self.folder.parent, config_folder()
        files = [path.relative_to(own) for path in own.rglob("*.yaml")] if own != ours else []
        return sorted(str(path) for path in files if (ours / path).is_file())

    def stated(self, config: Path | str) -> dict[str, Any]:
        """What stands in a file, also by its name; the name may be of a method of ours."""
        path = config if isinstance(config, Path) else self._path(config)
        return dict(OmegaConf.to_container(OmegaConf.load(path)) or {})  # type: ignore[arg-type]

    def compose(self, name: str, *words: str) -> DictConfig:
        """The config of a training of this method."""
        others = [] if self.folder.parent == config_folder() else [f'hydra.searchpath=["{self.place}"]']
        return composed("train", [*others, f"method={name}", *words])

    def build(self, name: str) -> Segmenter:
        """The method, its weights drawn from the seed 0."""
        return build_method(self.compose(name, *self.words), CLASSES)

    def _path(self, name: str) -> Path:
        own = self.folder / f"{name}.yaml"
        return own if own.is_file() else config_folder() / "method" / f"{name}.yaml"

    def _origin(self, name: str) -> str | None:
        """None for a part of methods."""
        first = (self.stated(name).get("defaults") or [None])[0]
        return first.removeprefix("/method/").removesuffix("@_here_") if isinstance(first, str) else None

    def _named(self, paths: Iterable[Path]) -> list[str]:
        return sorted(path.relative_to(self.folder).with_suffix("").as_posix() for path in paths)


@cache  # every test asks for them
def configs_of(place: str | Path, words: tuple[str, ...]) -> Configs:
    """The configs of a place, which may be a folder."""
    return Configs(place if isinstance(place, str) else f"file://{place.resolve()}", words)
