"""Templates of pages and cards: a missing name is an error, and numbers have one format."""

from pathlib import Path

import jinja2

from scripts.report import numbers


def template_environment(template_dir: Path, *, is_html: bool) -> jinja2.Environment:
    """Jinja for the templates of a directory; text for HTML is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_dir),
        autoescape=is_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=numbers.count,
        percent=numbers.percent,
        percent_digits=numbers.percent_digits,
        size=numbers.size,
    )
    return environment
