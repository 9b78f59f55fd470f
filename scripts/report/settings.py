"""The section `report` of the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.common.errors import UserError
from scripts.common.settings import settings_from


@dataclass(frozen=True)
class ReportSettings:
    """How much the page shows."""

    num_gallery_pictures: int  # of each benchmark

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ReportSettings":
        """Those of a whole configuration. Raises UserError naming the key."""
        settings = settings_from(cls, config["report"], "report")
        if settings.num_gallery_pictures < 0:
            raise UserError(f"report.num_gallery_pictures: {settings.num_gallery_pictures} found; expected 0 or more")
        return settings
