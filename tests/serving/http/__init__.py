"""Tests of the HTTP interface: the parts alone, and `lora-med serve` as a process of its own."""
