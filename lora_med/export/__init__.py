"""A merged model or an adapter for other engines: vLLM, ONNX, Ollama, GGUF, each checked where possible.

The command line uses `export_*` and `compatibility`.
"""
