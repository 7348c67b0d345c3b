"""Recipes: the dense model and the refiner."""
