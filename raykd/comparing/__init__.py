"""Comparing methods: many runs of one config, scored on the same speech, and one table of them."""
