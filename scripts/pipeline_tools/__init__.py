"""What several scripts share: reading recordings, speaking to the gateway, running the services."""
