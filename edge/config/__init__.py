"""`config.toml`: its sections (`schema`, `camera`), and reading it with every problem at once (`load`)."""

from edge.config.load import ConfigProblems, Problem, camera_of, development, line_of, load
from edge.config.schema import Config, StorageSection, WebSection

__all__ = [
    "Config",
    "ConfigProblems",
    "Problem",
    "StorageSection",
    "WebSection",
    "camera_of",
    "development",
    "line_of",
    "load",
]
