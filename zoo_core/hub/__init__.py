"""Weights: from a name in the catalogue to verified files on this machine."""
