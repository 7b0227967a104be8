"""Work by key: the orders of a customer are handled in order, while workers come and go.

Workers share the orders of 50 customers; the messages of one key, here the customer, go to one
worker at a time. A worker joins in the middle and one leaves: the customers go to others, whose
next order of each is the one that comes next.
"""

import threading

import fastmq
from fastmq import GroupMode

CUSTOMERS, ORDERS = 50, 40

handled: dict[bytes, list[int]] = {}
done = threading.Semaphore(0)


def work(client: fastmq.Client, orders_max: int) -> None:
    with client.subscribe(
        "order.new", group="workers", group_mode=GroupMode.KEY_SHARED
    ) as orders:
        for _ in range(orders_max):
            try:
                order = next(orders)
            except StopIteration:
                return
            handled.setdefault(order.key, []).append(int(order.payload))
            done.release()


def main() -> None:
    with fastmq.open() as client:
        workers = [threading.Thread(target=work, args=(client, 10**9)) for _ in range(2)]
        workers.append(threading.Thread(target=work, args=(client, 100)))
        for worker in workers:
            worker.start()
        while client.statistics()["subscriptions"] < len(workers):
            threading.Event().wait(0.001)
        with client.publisher("order.new") as publisher:
            for number in range(ORDERS):
                if number == ORDERS // 2:
                    workers.append(threading.Thread(target=work, args=(client, 10**9)))
                    workers[-1].start()
                for customer in range(CUSTOMERS):
                    # Refused for a moment while a customer moves to another worker.
                    while True:
                        try:
                            publisher.publish(str(number), key=f"customer {customer}")
                            break
                        except fastmq.Again:
                            threading.Event().wait(0.001)
        for _ in range(CUSTOMERS * ORDERS):
            done.acquire()
        client.close()
        for worker in workers:
            worker.join()
    assert len(handled) == CUSTOMERS
    assert all(numbers == list(range(ORDERS)) for numbers in handled.values())
    print(f"{CUSTOMERS * ORDERS} orders of {CUSTOMERS} customers, each customer's in order")


if __name__ == "__main__":
    main()
