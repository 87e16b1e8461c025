"""Who checks whom after a round, what counts as proof, and what follows from it (BTARD, Gorbunov et al. 2022).

A robust rule bounds the damage that some members do; these checks find out who they are. Everything here is pure:
`peer.verification` fetches, recomputes and tells the others.
"""
