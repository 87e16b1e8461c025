"""The SWARM pipeline (Ryabinin et al. 2023): how microbatches find their way, and who serves which stage."""
