"""The round: the exchange that turns the members' updates of one epoch into one result that all of them apply.

Start with `machine.py`, whose head holds the table of phases: `gathering.py` is the first of them, `follower.py` what a
member does in a term and `leader.py` what its leader does beside that, `terms.py` how terms replace each other,
`decision.py` what follows. `messages.py` is what they say to each other, `reduction.py` what the owner of a part does
with the chunks.
"""
