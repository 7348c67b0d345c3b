"""HTTP front over model handles; see :mod:`zoo_core.serving.server`."""
