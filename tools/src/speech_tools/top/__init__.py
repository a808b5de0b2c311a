"""What `speech top` is made of: a live view of the metrics."""
