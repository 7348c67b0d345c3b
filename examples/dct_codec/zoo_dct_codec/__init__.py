"""Block cosine transform as an image autoencoder.  Importing this imports no torch."""
