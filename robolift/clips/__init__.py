"""Egocentric clips: videos, extraction, features, pairs, and a downstream check by a small policy."""
