"""Formats of files: the conversion of lines into sentences. The corpora made of them are in `structkd.data.corpora`."""
