"""What `speech latency` is made of: how long each hop of an utterance takes."""
