"""One folder per operation; each has ``register(registry)``."""
