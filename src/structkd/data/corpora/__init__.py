"""Corpora: one loader a file, and the code that loaders share (`tagged`, `treebank`, `hub`).

A new corpus is one more file, here or in a package of your own, and a configuration that names its loader.
"""
