"""A game server in one process: rooms of players, ticks, and a board that shows where all are.

  players --input.PLAYER--> game     what they press; when the game is behind, the oldest go
  game --room.ROOM--> players        what each room looks like, to each player in it
  game --at.PLAYER--> board          where everybody is: only the newest place of each matters

The game's queue drops the oldest and counts them, the board's keeps the latest of each subject. At
the end every message is accounted for.
"""

import fastmq
from fastmq import Policy

ROOMS, PLAYERS, TICKS = 4, 80, 30


def main() -> None:
    with fastmq.open() as client:
        board = client.queue(policy=Policy.LATEST)
        places_of_board = client.subscribe("at.*", queue=board)
        inputs = client.subscribe("input.*", policy=Policy.DROP_OLDEST)
        present = client.subscribe(f"{fastmq.SUBJECT_JOINED}.room.>", replay_last=True)
        players = [client.subscribe(f"room.{player % ROOMS}") for player in range(PLAYERS)]
        rooms = [client.publisher(f"room.{room}") for room in range(ROOMS)]
        joined = 0
        while joined < PLAYERS:
            joined += len(present.receive(timeout=5))

        places = [0] * PLAYERS
        pressed = seen = shown = 0
        for tick in range(TICKS):
            for player in range(PLAYERS):
                client.publish(f"input.{player}", b"forward" if (player + tick) % 3 else b"wait")
                pressed += 1
            handled = 0
            while handled < PLAYERS:
                for message in inputs.receive(timeout=5):
                    handled += 1 + message.lost_before
                    player = int(message.subject.removeprefix("input."))
                    if message.payload == b"forward":
                        places[player] += 1
                        client.publish(f"at.{player}", str(places[player]))
            for room in rooms:
                room.publish(bytes(512))
            for subscription in players:
                seen += len(subscription.receive(timeout=5))
            if tick % 6 == 5:
                shown += len(board.receive(timeout=5))

        print(f"{pressed} inputs, {seen} views of rooms, {shown} places on the board")
        assert pressed == PLAYERS * TICKS and seen == PLAYERS * TICKS
        assert shown == PLAYERS * TICKS // 6
        replaced = board.statistics()["replaced"]
        assert shown + replaced == sum(places), (shown, replaced, sum(places))
        for room in rooms:
            room.close()
        places_of_board.unsubscribe()


if __name__ == "__main__":
    main()
