"""The commands around the inference server: `serve`, `serve verify`, and `chat` on the same engine without a server.

`serve_command.app` and `chat_command.app` are the rows of the table in cli/main.py.
"""
