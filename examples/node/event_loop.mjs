// The event loop: it waits for a timer, messages, questions and answers on one thread. No
// subscription has a thread, and an idle process ends by itself.

import { setInterval } from 'node:timers/promises';
import { open } from 'libfastmq';

const READINGS = 5;
const mq = open();
const readings = mq.subscribe('sensor.*');
let newest = '';

// Answers questions with the newest reading. It does not keep the process alive.
mq.respond('temperature', () => newest).unref();

/** The sensors: each tick of a timer is a reading. */
async function measure() {
  let published = 0;
  for await (const _ of setInterval(2)) {
    mq.publish(`sensor.${published % 2}`, String(20 + published));
    published += 1;
    if (published === READINGS) return;
  }
}

const sensors = measure();
let seen = 0;
for await (const reading of readings) {
  newest = reading.text();
  console.log(`${reading.subject}: ${newest} degrees`);
  seen += 1;
  if (seen === READINGS) break;
}
await sensors;
const reply = await mq.request('temperature', '', { timeout: 5000 });
console.log(`it is ${reply.text()} degrees now`);
// Nothing is closed here: nothing is awaited any more, so the process ends.
process.exitCode = reply.text() === '24' ? 0 : 1;
