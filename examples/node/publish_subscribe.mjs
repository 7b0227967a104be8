// Publish and subscribe: patterns, a shared queue, a publisher handle, headers and a callback.

import { once } from 'node:events';
import { open } from 'libfastmq';

const KITCHEN = 1;
const ALARM = 2;
const mq = open();

// One queue for two subscriptions, so that one loop reads both. The tag comes back with each
// message and says which of the two it is for: no subject needs to be looked at again.
const queue = mq.queue();
mq.subscribe('house.kitchen.*', { queue, tag: KITCHEN });
mq.subscribe('house.*.smoke', { queue, tag: ALARM });

// A callback instead of a queue: it is called in a later turn of the event loop.
const house = new EventTarget();
let inHouse = 0;
mq.subscribe('house.>', () => {
  inHouse += 1;
  if (inHouse === 4) house.dispatchEvent(new Event('quiet'));
});
const quiet = once(house, 'quiet');

// By subject: right for subjects that change from message to message.
mq.publish('house.kitchen.light', 'on');
mq.publish('house.cellar.light', 'nobody listens');

// By handle: the subject is checked and routed once, each publish is cheaper.
const smoke = mq.publisher('house.kitchen.smoke');
smoke.publish('none');

// A message with more to it than a payload.
mq.publish('house.kitchen.temperature', '21.5', { headers: { unit: 'celsius' } });

const seen = { kitchen: 0, alarm: 0 };
for await (const message of queue) {
  const whose = message.tag === ALARM ? 'alarm' : 'kitchen';
  const unit = message.header('unit')?.toString() ?? '';
  console.log(`${whose.padEnd(8)} ${message.subject}: ${message.text()} ${unit}`.trimEnd());
  seen[whose] += 1;
  if (seen.kitchen + seen.alarm === 4) break;
}
await quiet;
console.log(`${inHouse} messages in the house`);
mq.close();
// kitchen.smoke matches both patterns, so each of the two subscriptions has it.
process.exitCode = seen.kitchen === 3 && seen.alarm === 1 ? 0 : 1;
