"""The files of a base: found by name, read without loading, and caches of what is slow to find out or quantize.

Other rooms use `resolve_base` and `weight_files`.
"""
