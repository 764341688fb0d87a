"""Footage: lists of inputs, probing, decoding, sound, stream copies, signals as arrays."""
