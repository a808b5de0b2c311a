"""What `scripts/top.py` is made of: a live view of the metrics."""
