"""What `scripts/fuzz.py` is made of: targets, and the engine that feeds them."""
