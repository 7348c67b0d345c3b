"""The plugin's training recipe (paper section 5) and the emoji data it uses by default; see :mod:`zoo_sana.training.recipe`."""
