"""Test doubles and the embedded pipeline, for the tests of this repository and of those who use it.

`fakes` are in memory and need nothing; `embedded` is a broker and a schema registry in a process of
their own, for which neither Docker nor Java is needed. Nothing that a service runs imports this
package.
"""
