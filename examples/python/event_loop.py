"""An event loop: asyncio waits for a timer, messages, questions and answers on one thread.

By one descriptor for all that concerns a client; no subscription has a thread.
"""

import asyncio

from fastmq import aio

READINGS = 5


async def measure(client: aio.Client) -> None:
    """The sensors: each tick of a timer is a reading."""
    for number in range(READINGS):
        await asyncio.sleep(0.002)
        client.publish(f"sensor.{number % 2}", str(20 + number))


async def main() -> None:
    newest = b""
    async with (
        aio.open() as client,
        await client.subscribe("sensor.*") as readings,
        await client.subscribe("temperature") as questions,
    ):

        async def answer() -> None:
            async for question in questions:
                client.reply(question, newest)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(measure(client))
            thermometer = tasks.create_task(answer())
            for _ in range(READINGS):
                reading = await anext(readings)
                newest = reading.payload
                print(f"{reading.subject}: {newest.decode()} degrees")
            reply = await client.request("temperature", b"", timeout=5)
            print("it is", reply.payload.decode(), "degrees now")
            thermometer.cancel()
    assert reply.payload == b"24"


if __name__ == "__main__":
    asyncio.run(main())
