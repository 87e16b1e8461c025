"""A model in stages on many peers (SWARM, Ryabinin et al. 2023), of which each holds one."""
