from zoo_core.loading import load as load
