"""Encoded clips become shards, which can be verified."""
