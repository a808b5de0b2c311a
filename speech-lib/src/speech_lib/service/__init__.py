"""The life of a service: settings, start, readiness, operations port, logs, and its end.

Start at `run`, which a service's `__main__` calls.
"""
