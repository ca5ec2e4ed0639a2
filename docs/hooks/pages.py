"""Pages that stand elsewhere: experiments as they are, the notebook as Markdown; and the menu of what there is."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from facts import EXPERIMENTS, ROOT, methods
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PICTURES = {"image/jpeg": "jpg", "image/png": "png"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Every method and every experiment has its place in the menu."""
    for entry in config.nav or ():
        if "Methods" in entry:
            entry["Methods"] += [f"methods/{method.name}.md" for method in methods()]
        elif "Experiments" in entry:
            entry["Experiments"] += [{page.parent.name: _uri(page)} for page in sorted(EXPERIMENTS.glob("*/README.md"))]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the experiments with their pictures, and what the notebook becomes."""
    for path in sorted(EXPERIMENTS.glob("*/*")):
        if path.name == "README.md" or path.suffix in (".png", ".svg"):
            files.append(File(_uri(path), str(ROOT), config.site_dir, config.use_directory_urls))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(notebook)
        name = notebook.src_uri.removesuffix(".ipynb")
        text, pictures = as_markdown(Path(config.docs_dir, notebook.src_uri), name)
        files.append(File.generated(config, f"{name}.md", content=text))
        for picture, content in pictures.items():
            files.append(File.generated(config, picture, content=content))
    return files


def _uri(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def as_markdown(notebook: Path, name: str) -> tuple[str, dict[str, bytes]]:
    """Its cells one after another with what they printed, and the pictures that they drew by their file's name."""
    blocks: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        blocks.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data: dict[str, Any] = output.get("data", {"text/plain": output.get("text", ())})
            kind = next((kind for kind in (*PICTURES, "text/plain") if kind in data), None)
            content = "".join(data[kind]) if kind else ""
            if kind in PICTURES:
                file = f"{name}-{len(pictures)}.{PICTURES[kind]}"
                pictures[file] = base64.b64decode(content)
                blocks.append(f"![What the cell above draws]({file})")
            elif content:
                blocks.append(f"```text\n{content.rstrip()}\n```")
    return "\n\n".join(blocks) + "\n", pictures
