"""A diffusion transformer on cached latents."""
