"""Retrieval's judges of an encoder: one file each, found by its module's name."""
