"""Choices that several commands offer, as typer wants them."""

from enum import StrEnum


class ResizeMode(StrEnum):
    letterbox = "letterbox"
    stretch = "stretch"
