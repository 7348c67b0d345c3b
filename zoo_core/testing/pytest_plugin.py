"""Pytest option ``--zoo-plugin NAME``: run the conformance kit on a plugin."""

from __future__ import annotations
