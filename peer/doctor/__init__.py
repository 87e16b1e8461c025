"""`peer doctor`: what would stop this machine from taking part in a run, each with the mend.

findings.py      what a check comes to, and the report of all
machine.py       versions, home, disk, memory, cores, open files: looked at
network.py       the network process, initial peers, clock: tried out, together with
reachability.py  who can connect to this machine, as it sees itself and as an initial peer that dials back does
bandwidth.py     within this machine, and to an initial peer
"""
