"""Stubs generated from the protos of millstream.v1 by scripts/stubs.py; nothing here is written by hand."""
