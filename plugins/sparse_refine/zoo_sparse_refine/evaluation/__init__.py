"""Evaluators of semantic segmentation."""
