"""What a process tells about itself: spans with their trace context, and process metrics."""
