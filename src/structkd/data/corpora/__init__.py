"""Corpora: one loader a file, and what they share (`tagged`, `treebank`, `hub`).

A new corpus is one more file here, or anywhere, and a configuration that names its loader.
"""
