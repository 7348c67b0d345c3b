"""The autoencoder's training recipe (three phases of the paper); see :mod:`zoo_dc_ae.training.recipe`."""
