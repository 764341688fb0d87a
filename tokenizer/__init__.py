"""The adaptive-frame-rate tokenizer: a causal 3D VAE."""
