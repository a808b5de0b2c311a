"""What `scripts/overhead.py` is made of: what watching the gateway costs."""
