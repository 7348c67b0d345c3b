"""Numeric operations."""
