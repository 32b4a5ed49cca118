"""Records to rows on disk, once a machine: tokenized by several processes, checked, packed, written as Arrow files.

Workflows use `prepared.prepare_rows`; nothing here imports torch, so that the processes that prepare stay small.
"""
