"""Caches: token policy per kv-head x storage format."""
