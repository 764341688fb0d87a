"""Kept clips get a caption: given, composed, asked of a server or of a local model."""
