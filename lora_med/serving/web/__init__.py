"""The web interface of the inference server: what a request may hold, who may send it, and what the answers look like.

`api.build_app` puts these together; `server_process.serve` runs the result until a signal ends it.
"""
