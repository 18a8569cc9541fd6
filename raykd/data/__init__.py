"""Speech from sources to batches: utterance rows, prepared corpora, the order of an epoch, and the stream of its steps."""
