// A game server in one process: 10 rooms of 100 players, 60 ticks a second.
//
//   players --input.PLAYER--> game     what they press; when the game is behind, the oldest go
//   game --room.ROOM--> players        what each room looks like, 512 bytes to each player in it
//   game --at.PLAYER--> board          where everybody is: only the newest place of each matters
//
// The game's queue drops the oldest and counts them, the board's keeps the latest of each subject:
// it looks ten times a second and gets each player who has moved once. At the end every message is
// accounted for: handled, or counted as dropped.
//
//     node game_room.mjs [SECONDS]     --check: 20 ticks without waiting, for the tests

import { setTimeout as sleep } from 'node:timers/promises';
import { open } from 'libfastmq';

const ROOMS = 10;
const PLAYERS = 1000;
const TICKS_PER_S = 60;
const BOARD_EVERY = 6;
const ROOM_BYTES = 512;
const isCheck = process.argv.includes('--check');
const ticks = isCheck ? 20 : (Number(process.argv[2]) || 3) * TICKS_PER_S;

const mq = open();
const players = Array.from({ length: PLAYERS }, (_, number) => number);
const inputs = mq.queue({ policy: 'dropOldest', capacity: 1 << 20 });
const sight = mq.queue({ policy: 'dropOldest', capacity: 4 << 20 });
const board = mq.queue({ policy: 'latest' });
mq.subscribe('input.*', { queue: inputs });
mq.subscribe('at.*', { queue: board });
// All players share one queue; the tag says whose eyes it were.
for (const player of players) {
  mq.subscribe(`room.${player % ROOMS}`, { queue: sight, tag: player });
}
const hands = players.map((player) => mq.publisher(`input.${player}`));
const tells = players.map((player) => mq.publisher(`at.${player}`));
const rooms = Array.from({ length: ROOMS }, (_, room) => mq.publisher(`room.${room}`));
const places = players.map(() => ({ x: 0, y: 0 }));
const shown = players.map(() => ({ x: 0, y: 0 }));
const counts = { handled: 0, seen: 0, wrong: 0, looks: 0, updates: 0, replaced: 0 };

/** All that waits in a queue, a batch at a time. */
function* take(queue) {
  for (let batch = queue.tryReceive(0); batch !== null; batch = queue.tryReceive(0)) yield* batch;
}

/** The players: each presses something. */
function press(tick) {
  for (const player of players) {
    const input = Buffer.alloc(6);
    input.writeUInt32LE(player, 0);
    input.writeInt8(((player + tick) % 3) - 1, 4);
    input.writeInt8(((player * 7 + tick) % 3) - 1, 5);
    hands[player].publish(input);
  }
}

/** The game: moves whoever pressed something, tells where they are, shows each room. */
function play() {
  for (const { payload } of take(inputs)) {
    const player = payload.readUInt32LE(0);
    const place = places[player];
    place.x += payload.readInt8(4);
    place.y += payload.readInt8(5);
    tells[player].publish(new Int32Array([place.x, place.y]));
    counts.handled += 1;
  }
  rooms.forEach((room, number) => room.publish(Buffer.alloc(ROOM_BYTES, number)));
}

/** The players see their rooms. */
function look() {
  for (const room of take(sight)) {
    counts.seen += 1;
    counts.wrong += room.payload[0] === room.tag % ROOMS ? 0 : 1;
  }
}

/** The board: who has moved since it last looked, once each. */
function lookAtBoard() {
  counts.looks += 1;
  for (const { subject, payload, lostBefore } of take(board)) {
    shown[Number(subject.slice('at.'.length))] = {
      x: payload.readInt32LE(0), y: payload.readInt32LE(4),
    };
    counts.updates += 1;
    counts.replaced += lostBefore;
  }
}

const begun = performance.now();
for (let tick = 1; tick <= ticks; tick += 1) {
  press(tick);
  play();
  look();
  if (tick % BOARD_EVERY === 0) lookAtBoard();
  if (!isCheck) await sleep(Math.max(0, begun + tick * 1000 / TICKS_PER_S - performance.now()));
}
lookAtBoard();

const missed = { inputs: inputs.statistics().dropped, views: sight.statistics().dropped };
const sent = ticks * PLAYERS;
const isRight = counts.handled + missed.inputs === sent && counts.seen + missed.views === sent
  && counts.wrong === 0 && counts.updates + counts.replaced === counts.handled
  && players.every((player) => shown[player].x === places[player].x
    && shown[player].y === places[player].y);
console.log(`${ticks} ticks of ${ROOMS} rooms with ${PLAYERS / ROOMS} players`);
console.log(`inputs: ${counts.handled} handled, ${missed.inputs} dropped as too old`);
console.log(`views of rooms: ${counts.seen} seen, ${missed.views} dropped as too old`);
console.log(`board: ${counts.looks} looks, ${counts.updates} places seen, `
  + `${counts.replaced} replaced by newer ones`);
console.log(isRight ? 'every message is accounted for' : 'MESSAGES ARE MISSING');
mq.close();
process.exitCode = isRight ? 0 : 1;
