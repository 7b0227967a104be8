"""A game server in one process: 10 rooms of 100 players, 60 ticks a second.

  players --input.PLAYER--> game     what they press; when the game is behind, the oldest go
  game --room.ROOM--> players        what each room looks like, 512 bytes to each player in it
  game --at.PLAYER--> board          where everybody is: only the newest place of each matters

The game's queue drops the oldest and counts them, the board's keeps the latest of each subject: it
looks ten times a second and gets each player who has moved once. At the end every message is
accounted for: handled, or counted as dropped.

    game_room.py [SECONDS]           --check: 20 ticks without waiting, for the tests
"""

import struct
import sys
import time
from collections.abc import Iterator

import fastmq
from fastmq import Policy

ROOMS, PLAYERS, TICKS_PER_S, BOARD_EVERY, ROOM_BYTES = 10, 1000, 60, 6, 512
INPUT = struct.Struct("<Ibb")  # the player, and by how much x and y change
PLACE = struct.Struct("<ii")


def take(queue: fastmq.Queue) -> Iterator[fastmq.Message]:
    """All that waits in a queue, a batch at a time."""
    while True:
        try:
            yield from queue.receive(timeout=0)
        except fastmq.Again:
            return


class Game:
    def __init__(self, client: fastmq.Client) -> None:
        self.inputs = client.queue(policy=Policy.DROP_OLDEST, capacity=1 << 20)
        self.sight = client.queue(policy=Policy.DROP_OLDEST, capacity=4 << 20)
        self.board = client.queue(policy=Policy.LATEST)
        # A subscription that nobody holds ends.
        self.subscriptions = [
            client.subscribe("input.*", queue=self.inputs),
            client.subscribe("at.*", queue=self.board),
        ]
        for player in range(PLAYERS):
            # All players share one queue; the tag says whose eyes it were.
            eyes = client.subscribe(f"room.{player % ROOMS}", queue=self.sight, tag=player)
            self.subscriptions.append(eyes)
        self.hands = [client.publisher(f"input.{player}") for player in range(PLAYERS)]
        self.tells = [client.publisher(f"at.{player}") for player in range(PLAYERS)]
        self.rooms = [client.publisher(f"room.{room}") for room in range(ROOMS)]
        self.places = [(0, 0)] * PLAYERS
        self.shown = [(0, 0)] * PLAYERS
        self.handled = self.seen = self.looks = self.updates = self.replaced = 0

    def press(self, tick: int) -> None:
        """The players: each presses something."""
        for player, hand in enumerate(self.hands):
            hand.publish(INPUT.pack(player, (player + tick) % 3 - 1, (player * 7 + tick) % 3 - 1))

    def tick(self) -> None:
        """Moves whoever pressed something, tells where they are, shows each room."""
        for message in take(self.inputs):
            player, x, y = INPUT.unpack(message.payload)
            place = self.places[player] = (self.places[player][0] + x, self.places[player][1] + y)
            self.tells[player].publish(PLACE.pack(*place))
            self.handled += 1
        for room, publisher in enumerate(self.rooms):
            publisher.publish(bytes([room]) * ROOM_BYTES)

    def look(self) -> None:
        """The players see their rooms."""
        for message in take(self.sight):
            assert message.payload[0] == message.tag % ROOMS
            self.seen += 1

    def look_at_board(self) -> None:
        """Who has moved since the last look, once each."""
        self.looks += 1
        for message in take(self.board):
            player = int(message.subject.removeprefix("at."))
            self.shown[player] = PLACE.unpack(message.payload)
            self.updates += 1
            self.replaced += message.lost_before


def main() -> None:
    argument = sys.argv[1] if len(sys.argv) > 1 else "3"
    is_check = argument == "--check"
    ticks = 20 if is_check else int(argument) * TICKS_PER_S
    with fastmq.open() as client:
        game = Game(client)
        begun = time.monotonic()
        for tick in range(1, ticks + 1):
            game.press(tick)
            game.tick()
            game.look()
            if tick % BOARD_EVERY == 0:
                game.look_at_board()
            if not is_check:
                time.sleep(max(0, begun + tick / TICKS_PER_S - time.monotonic()))
        game.look_at_board()

        missed = game.inputs.statistics()["dropped"], game.sight.statistics()["dropped"]
        print(f"{ticks} ticks of {ROOMS} rooms with {PLAYERS // ROOMS} players")
        print(f"inputs: {game.handled} handled, {missed[0]} dropped as too old")
        print(f"views of rooms: {game.seen} seen, {missed[1]} dropped as too old")
        print(
            f"board: {game.looks} looks, {game.updates} places seen,"
            f" {game.replaced} replaced by newer ones"
        )
        sent = ticks * PLAYERS
        assert (game.handled + missed[0], game.seen + missed[1]) == (sent, sent)
        assert game.updates + game.replaced == game.handled and game.shown == game.places
        print("every message is accounted for")


if __name__ == "__main__":
    main()
