"""Inputs are probed."""
