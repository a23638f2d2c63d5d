"""A networked camera by its RTSP address, through OpenCV's FFmpeg (RTP inside the TCP connection)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import cv2

from edge.config.text import first_line

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT: Final = 5.0
"""Seconds without an answer, or without a frame, after which the camera counts as lost."""


def address(url: str) -> str:
    """What logs may say of a URL: scheme, host and port. Users, passwords, paths and queries hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def with_credentials(url: str, username: str | None, password_file: Path | None) -> str:
    """The URL with user and password put in. Raises ConfigError when the password cannot be read."""
    if username is None:
        return url
    password = first_line(password_file, "camera.password_file") if password_file else ""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(username, safe='')}:{quote(password, safe='')}@{host}").geturl()


def open_url(url: str) -> cv2.VideoCapture:
    """A capture of an rtsp:// or rtsps:// URL; opened or not."""
    # OpenCV takes FFmpeg's options from the environment only. UDP loses packets, and each smears a picture.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    wait = int(TIMEOUT * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
    return cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
