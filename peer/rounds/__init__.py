"""Rounds over a transport: what drives the state machine of `protocols.round`, and moves the chunks.

`session.py` plays one epoch; `owning.py` and `exchange.py` are the two ends of a part's stream; `results.py` keeps what
was decided for those who come late; `post.py` takes messages in and sends them out.
"""
