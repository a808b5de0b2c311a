"""Machinery that several tests share. Nothing that users run imports it."""
