"""An inference server over many adapters: the engine that batches requests, and the web interface in front of it.

`requests` holds what goes into the engine and what comes out; `engine.Engine` runs it.
"""
