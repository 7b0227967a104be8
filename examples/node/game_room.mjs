// A game server in one process: rooms of players, and a tick that looks at what they press.
//
//   players --input.PLAYER--> game     what they press; when the game is behind, the oldest go
//   game --room.ROOM--> players        what each room looks like, to each player in it
//   game --at.PLAYER--> board          where everybody is: only the newest place of each matters
//
//     node game_room.mjs [SECONDS]     --check: 20 ticks without waiting, for the tests

import { setTimeout as sleep } from 'node:timers/promises';
import { open } from 'libfastmq';

const ROOMS = 10;
const PLAYERS = 200;
const TICKS_PER_S = 60;
const BOARD_EVERY = 6;
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
const rooms = Array.from({ length: ROOMS }, (_, room) => mq.publisher(`room.${room}`));
const places = players.map((player) => ({ x: 0, y: 0, at: mq.publisher(`at.${player}`) }));
const counts = { pressed: 0, handled: 0, seen: 0, missed: 0, wrong: 0, moves: 0, looks: 0 };

/** All that waits in a queue, a batch at a time. */
function* take(queue) {
  for (let batch = queue.tryReceive(0); batch !== null; batch = queue.tryReceive(0)) yield* batch;
}

for (let tick = 0; tick < ticks; tick += 1) {
  for (const player of players) {
    const input = Buffer.alloc(8);
    input.writeUInt32LE(player, 0);
    input.writeInt8(((player + tick) % 3) - 1, 4);
    input.writeInt8(((player * 7 + tick) % 3) - 1, 5);
    hands[player].publish(input);
    counts.pressed += 1;
  }
  for (const input of take(inputs)) {
    const { payload } = input;
    const place = places[payload.readUInt32LE(0)];
    place.x += payload.readInt8(4);
    place.y += payload.readInt8(5);
    place.at.publish(new Int32Array([place.x, place.y]));
    counts.handled += 1;
    counts.missed += input.lostBefore;
  }
  rooms.forEach((room, number) => room.publish(Buffer.alloc(512, number)));
  for (const look of take(sight)) {
    counts.seen += 1;
    counts.missed += look.lostBefore;
    counts.wrong += look.payload[0] === look.tag % ROOMS ? 0 : 1;
  }
  if (tick % BOARD_EVERY === BOARD_EVERY - 1) {
    for (const move of take(board)) counts.moves += move.size === 8 ? 1 : 0;
    counts.looks += 1;
  }
  if (!isCheck) await sleep(1000 / TICKS_PER_S);
}
console.log(`${ticks} ticks: ${counts.pressed} inputs, ${counts.handled} handled; `
  + `${counts.seen} looks into rooms, ${counts.missed} missed`);
console.log(`the board looked ${counts.looks} times and saw ${counts.moves} players at new places`);
mq.close();
const isWhole = counts.handled + counts.seen + counts.missed === ticks * PLAYERS * 2;
process.exitCode = isWhole && counts.wrong === 0 ? 0 : 1;
