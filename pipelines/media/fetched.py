"""The bytes of the object that is being worked on, shared by all that read it: probe, digest, pictures, packets, sound.

A source in a bucket is opened many times over, for each clip and for its sound. What was fetched of the one that was
opened last is held, so a small film is one GET however many clips are cut from it.
"""

from __future__ import annotations

import os
from functools import lru_cache

from rushes.pipelines.store import objects, storage

HOLD_BYTES = 5 * objects.PIECE_BYTES
"""Held of an object: its head, its index, where the pictures and where the sound are read, and one before."""


def of(uri: str) -> objects.Pieces:
    """Return the bytes of an object, those that were fetched already if it is the one that was asked for last."""
    return _of(uri, os.getpid())


def afresh(uri: str) -> objects.Pieces:
    """Return the bytes of an object as they are now: nothing fetched before counts any more."""
    _of.cache_clear()
    return of(uri)


@lru_cache(maxsize=1)
def _of(uri: str, process: int) -> objects.Pieces:
    """Forked processes do not share a client of the store."""
    return storage.pieces(uri, HOLD_BYTES)
