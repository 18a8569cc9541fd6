"""Sweeps: one config with other values of some keys, many times, and which to take."""
