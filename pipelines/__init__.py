"""Curation: from raw footage to shards. Only this package imports Ray."""
