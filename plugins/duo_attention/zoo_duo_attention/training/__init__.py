"""Finding retrieval heads: data, objective, recipe."""
