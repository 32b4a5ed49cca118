"""GGUF files by llama.cpp's own converter; a file gets its name only if llama.cpp's outputs equal PyTorch's.

Other packages use `export_gguf` and `converter_setup`.
"""
