"""A member list that names an impossible host must not end the dialing without a word."""

import asyncio
import random

from pgraft.core.types import NodeId
from pgraft.identity import Founder, Identity
from pgraft.net.channel import Channel
from pgraft.net.tcp import Address, TcpOptions, TcpTransport, addresses
from tests.support.ports import free_port
from tests.support.wait import wait_for_async


async def test_a_host_that_can_be_no_name_is_dialed_again_and_again() -> None:
    founders = (
        Founder(node=NodeId(1), address="127.0.0.1:1"),
        Founder(node=NodeId(2), address="no..host:1234"),
    )
    identity = Identity(node=NodeId(1), uuid="a" * 32, cluster_name="test", founders=founders)
    options = TcpOptions(
        listen=Address(host="127.0.0.1", port=free_port()),
        peers=addresses(founders, NodeId(1)),
        secret=b"a secret of the tests, long enough",
    )
    transport = TcpTransport(identity, options, random.Random(1))
    loop = asyncio.get_running_loop()
    tries = 0
    create = loop.create_connection

    async def counted(*args: object, **kwargs: object) -> object:
        nonlocal tries
        tries += 1
        return await create(*args, **kwargs)  # type: ignore[call-overload]

    loop.create_connection = counted  # type: ignore[method-assign,assignment]
    await transport.start(Channel(NodeId(1), transport))
    try:
        await wait_for_async(lambda: tries >= 2, 5, "it is dialed again")
    finally:
        await transport.close()
