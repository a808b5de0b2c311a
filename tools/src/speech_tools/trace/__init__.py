"""What `speech trace` is made of: finding an utterance on its topics, and showing its way."""
