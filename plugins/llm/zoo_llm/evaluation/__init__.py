"""Text evaluators against the ``CausalLM`` protocol."""
