"""The round: the exchange that turns the members' updates of one epoch into one result that all of them apply.

Start with `machine.py`, whose head holds the table of phases; `leader.py` is what the leader of a term adds to it,
`messages.py` what they say to each other, `reduction.py` what the owner of a part does with the chunks.
"""
