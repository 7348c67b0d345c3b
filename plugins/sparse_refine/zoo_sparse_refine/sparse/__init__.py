"""Sparse convolution: points, levels and the engines that compute on them."""
