"""Bases that are quantized on disk: how, and their dequantized values as a base of full precision in the cache.

Other rooms use `stored_quantization` (what config.json says), `values_folder` (the dequantized base) and
`weights_source` (what a load reads).
"""
