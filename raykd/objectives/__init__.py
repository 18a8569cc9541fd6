"""What the student is trained to match: token distributions, divergences between them, and their weights over training."""
