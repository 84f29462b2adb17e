"""Robolift: labelled data and better policies from what robots recorded."""

__version__ = "0.1.0"
