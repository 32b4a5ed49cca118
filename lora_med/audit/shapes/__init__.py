"""What identifiers look like: the patterns of each type, and the words they are made of.

Other rooms use `find_identifiers` of lora_med/audit/identifiers.py.
"""
