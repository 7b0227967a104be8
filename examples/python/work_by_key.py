"""Work by key: the orders of a customer are handled in order, while workers come and go.

Three workers share the orders of 100 customers. The messages of one key, here the customer, go to
one worker at a time. A fourth joins in the middle, and one leaves with orders unread: its customers
go to the others, whose next order of each is the one that comes next.
"""

import math
import struct
import threading

import fastmq
from fastmq import GroupMode

CUSTOMERS, ORDERS = 100, 40
ORDER = struct.Struct("<II")  # the customer, and the number of the order, from 0, of this customer


class Worker(threading.Thread):
    # The next order of each customer. Shared: a customer is handled by one worker at a time.
    next = [0] * CUSTOMERS

    def __init__(self, client: fastmq.Client, order_max: float = math.inf) -> None:
        super().__init__()
        self.orders = client.subscribe(
            "order.*", group="warehouse", group_mode=GroupMode.KEY_SHARED
        )
        self.order_max = order_max
        self.handled = self.mistakes = 0
        self.start()

    def run(self) -> None:
        # Unsubscribing ends the queue, too; what is in it goes to the others.
        with self.orders:
            while self.handled < self.order_max:
                try:
                    batch = self.orders.receive(message_max=32)
                except fastmq.End:
                    return  # drained
                # When the batch ends its orders are handled: the keys that are to move may move.
                with batch:
                    for order in batch:
                        customer, number = ORDER.unpack(order.payload)
                        self.mistakes += number != self.next[customer]
                        self.next[customer] = number + 1
                        self.handled += 1


def main() -> None:
    with fastmq.open() as client:
        workers = [Worker(client, CUSTOMERS * ORDERS / 10), Worker(client), Worker(client)]
        for number in range(ORDERS):
            if number == ORDERS // 2:
                workers.append(Worker(client))
            for customer in range(CUSTOMERS):
                order = ORDER.pack(customer, number)
                # Waits while the customer is on the way to another worker.
                client.publish_wait("order.new", order, key=str(customer), timeout=10)

        client.drain(timeout=10)
        for worker in workers:
            worker.join()
        handled = sum(worker.handled for worker in workers)
        mistakes = sum(worker.mistakes for worker in workers)
        print(
            f"{handled} orders of {CUSTOMERS} customers were handled,"
            f" {mistakes} of them out of order"
        )
        assert handled == CUSTOMERS * ORDERS and mistakes == 0


if __name__ == "__main__":
    main()
