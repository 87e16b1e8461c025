"""The one place that imports hivemind, and undoes what the import does to the process's logging and warnings.

hivemind installs its own log handler, stops propagation, renames WARNING to WARN and adds warning filters. Here its
messages go through the logger `hivemind` to our handlers, at WARNING and above.
"""

import logging
import warnings

_level_name = logging.getLevelName(logging.WARNING)
with warnings.catch_warnings():
    from hivemind.dht import DHTNode
    from hivemind.dht.protocol import DHTProtocol
    from hivemind.dht.routing import DHTID
    from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
    from hivemind.dht.validation import DHTRecord, RecordValidatorBase
    from hivemind.p2p import P2P, PeerID
    from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError
    from hivemind.proto import dht_pb2, p2pd_pb2
    from hivemind.utils.logging import use_hivemind_log_handler
    from hivemind.utils.multiaddr import Multiaddr

use_hivemind_log_handler("nowhere")
logging.addLevelName(logging.WARNING, _level_name)
logging.getLogger("hivemind").setLevel(logging.WARNING)

__all__ = [
    "DHTID",
    "P2P",
    "DHTLocalStorage",
    "DHTNode",
    "DHTProtocol",
    "DHTRecord",
    "DictionaryDHTValue",
    "Multiaddr",
    "P2PDaemonError",
    "P2PHandlerError",
    "PeerID",
    "RecordValidatorBase",
    "dht_pb2",
    "p2pd_pb2",
]
