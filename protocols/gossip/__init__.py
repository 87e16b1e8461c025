"""Training without groups and leaders: each peer goes at its own pace, and mixes its model with neighbours'.

Pure: who mixes with whom (`topologies`) and how fast that brings models together (`spectrum`), what a peer does with a
neighbour's model (`mixing`, `variance`, `momentum`), when an exchange counts for both (`commitment`), how epochs get
about (`progress`); sampled committees instead of neighbours (`committee`); DADAO (`dadao`), for convex problems.
"""
