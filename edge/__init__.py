"""Anonymised facial-expression counts on a kiosk: the appliance."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("edge-fer")
except PackageNotFoundError:  # a source tree on PYTHONPATH, not installed
    __version__ = "0+source"
