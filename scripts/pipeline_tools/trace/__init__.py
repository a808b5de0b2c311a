"""What `scripts/trace.py` is made of: finding an utterance on its topics, and showing its way."""
