"""What `speech load` is made of: many speakers at once, and what the gateway makes of them."""
