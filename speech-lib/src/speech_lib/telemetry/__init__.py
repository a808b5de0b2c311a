"""What a process reports about itself: spans with their trace context, and process metrics."""
