"""`speech bench`: what the gateway costs, beside a bare `websockets` server."""
