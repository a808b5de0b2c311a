"""What a service's operations port says: how its pages are fetched, and what its metrics mean."""
