"""Sana: text to image with a linear diffusion transformer (arXiv 2410.10629)."""
