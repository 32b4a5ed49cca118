"""Adapters made elsewhere, by PEFT, Unsloth or MLX: read, checked and converted, before the store takes them.

Other rooms use `import_peft`.
"""
