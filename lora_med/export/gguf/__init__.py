"""GGUF files by llama.cpp's own converter; llama.cpp's answers must equal ours before a file gets its name.

Other rooms use `export_gguf` and `converter_setup`.
"""
