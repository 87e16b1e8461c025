"""`peer doctor`: what would stop this machine from taking part in a run, each with the mend.

findings.py    what a check comes to, and the report of all
machine.py     versions, home, disk, memory, cores, open files: looked at
network.py     the network process, ports, reachability, bandwidth, initial peers, clock: tried out
"""
