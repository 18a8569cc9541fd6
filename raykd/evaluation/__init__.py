"""Greedy decoding, text normalisers, error rates and speed."""
