"""Class-conditional diffusion models on DC-AE latents: U-ViT, USiT and DiT."""
