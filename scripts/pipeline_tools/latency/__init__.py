"""What `scripts/latency.py` is made of: how long each hop of an utterance takes."""
