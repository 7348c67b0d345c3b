"""DuoAttention: retrieval and streaming heads (arXiv 2410.10819) on any transformers decoder."""
