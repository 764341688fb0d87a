"""The single decode of footage."""
