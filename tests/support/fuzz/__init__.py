"""What `tests/support/fuzz` is made of: targets, and the engine that feeds them."""
