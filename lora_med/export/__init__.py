"""A merged model or an adapter for other engines: vLLM, ONNX, Ollama, GGUF, each checked where it can be.

The command line uses `export_*` and `compatibility`.
"""
