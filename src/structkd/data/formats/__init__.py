"""Formats of files: how lines become sentences. What a corpus is made of them is in `structkd.data.corpora`."""
