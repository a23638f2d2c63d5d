"""Which models of a bundle a configuration makes the device run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.vision.detect.choose import detector_roles
from edge.vision.route import ROLES

if TYPE_CHECKING:
    from edge.bundle.manifest import Bundle
    from edge.config import Config


def needed_roles(bundle: Bundle, config: Config) -> tuple[str, ...]:
    """Roles in the order in which a frame asks them: the detector's, if it is a model, then the strategy's."""
    return (*detector_roles(bundle, config.detector.kind), *ROLES[config.models.strategy])
