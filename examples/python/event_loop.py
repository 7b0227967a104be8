"""An event loop: asyncio waits for messages, answers and other things on one descriptor."""

import asyncio

from fastmq import aio


async def sensors(client: aio.Client) -> None:
    """Another thing that happens in the loop."""
    for number in range(5):
        client.publish(f"sensor.{number % 2}", str(20 + number))
        await asyncio.sleep(0.001)
    client.publish("sensor.end", b"")


async def thermometer(client: aio.Client, requests: aio.Subscription) -> None:
    """Answers requests with the newest temperature."""
    async with await client.subscribe("sensor.*") as readings:
        newest = b""

        async def read() -> None:
            nonlocal newest
            async for reading in readings:
                if reading.subject == "sensor.end":
                    return
                newest = reading.payload
                print(f"{reading.subject}: {newest.decode()} degrees")

        await asyncio.gather(read(), sensors(client))
        async for request in requests:
            client.reply(request, newest)


async def main() -> None:
    async with aio.open() as client, await client.subscribe("temperature") as requests:
        task = asyncio.create_task(thermometer(client, requests))
        reply = await client.request("temperature", b"", timeout=5)
        print("it is", reply.payload.decode(), "degrees now")
        assert reply.payload == b"24"
        requests.unsubscribe()
        await task


if __name__ == "__main__":
    asyncio.run(main())
