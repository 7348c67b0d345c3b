"""Shared floor under the language-model papers."""
