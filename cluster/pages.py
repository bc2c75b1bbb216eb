"""Pages of HTML that load nothing from anywhere: our templates, our style, our pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).with_name("templates")


def render_page(template: str, pictures: Mapping[str, str], **values: Any) -> str:
    """A page of `cluster/templates`.

    Args:
        template: its file.
        pictures: SVG by name, found as `charts` in the template; they are ours and go in as they are.
        values: everything else; it is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    safe = {name: Markup(svg) for name, svg in pictures.items()}  # noqa: S704
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(charts=safe, **values)
