"""hivemind's `P2P` attached to a p2pd of ours, for the RPCs of its DHT.

It can be attached again to a p2pd that was started anew, and detached so that no task of hivemind's is left behind.
"""

import asyncio
from typing import Any

from dht.hivemind_quietly import P2P, Multiaddr, P2PDaemonError
from dht.p2pd import P2pd, P2pdError

ATTACH_SECONDS = 5.0


class AttachedP2P(P2P):  # type: ignore[misc]
    """What `DHTNode` needs of a `P2P`; it neither starts nor stops p2pd."""

    _detached = False

    @classmethod
    async def attach(cls, p2pd: P2pd) -> "AttachedP2P":
        attached: AttachedP2P = await cls.replicate(Multiaddr(f"/unix{p2pd.control_path}"))
        return attached

    async def _ping_daemon(self) -> None:
        """The last step of `replicate`: who is cancelled in it would leave hivemind's tasks behind."""
        try:
            await super()._ping_daemon()
        except BaseException:
            await self.pause()
            raise

    async def call_protobuf_handler(self, *arguments: Any, **options: Any) -> Any:
        if self._detached:
            raise P2PDaemonError("p2pd does not run")
        return await super().call_protobuf_handler(*arguments, **options)

    async def attach_again(self) -> None:
        """After `pause`: connects to p2pd, which has been started anew at its place, and registers the handlers there.

        Raises P2pdError when p2pd is gone again.
        """
        control = self._client.control
        handlers = dict(control.unary_handlers)
        control._pending_messages = asyncio.Queue()
        try:
            async with asyncio.timeout(ATTACH_SECONDS):
                await control._ensure_persistent_conn()
                for name, handler in handlers.items():
                    control.unary_handlers.pop(name)
                    await control.add_unary_handler(name, handler)
        except (OSError, EOFError, P2PDaemonError, TimeoutError) as error:
            raise P2pdError(f"p2pd ended at once: {error}") from error
        finally:
            control.unary_handlers |= handlers
        self._detached = False

    async def pause(self) -> None:
        """Fails the calls under way and those to come, so that nobody waits for them, and ends hivemind's own tasks."""
        self._detached = True
        control = self._client.control
        for call in list(control._pending_calls.values()):
            if not call.done():
                call.set_exception(P2PDaemonError("p2pd does not run"))
        tasks = [control._read_task, control._write_task, *control._handler_tasks.values()]
        control._handler_tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def detach(self) -> None:
        await self.pause()
        await self.shutdown()
