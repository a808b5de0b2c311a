"""Test doubles and the embedded pipeline, for the tests of this repository and of those who use it.

`fakes` live in memory. `embedded` is a broker and a schema registry in a process of their own, and
needs neither Docker nor Java. Nothing that a service runs imports this package.
"""
