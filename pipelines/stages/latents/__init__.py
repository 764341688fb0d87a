"""Clip shards through the tokenizer into latent shards."""
