"""The network: the libp2p node, DHT records, discovery, and the transport, real and simulated."""
