"""One prompt to a base and several adapters at once: what answers it is behind the protocol in `answering.py`.

The command line puts the serving engine behind it; `answer_flow.py` brings the answers to a page as they come.
"""
