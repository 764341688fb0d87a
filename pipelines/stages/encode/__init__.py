"""Kept clips are cut, once."""
