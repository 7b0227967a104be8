// Publish and subscribe in one process: a departure board that follows some flights.

import { open } from 'libfastmq';

const mq = open();
const board = mq.subscribe('flight.*.JFK');

mq.publish('flight.LAX.JFK', 'on time');
mq.publish('flight.LAX.SFO', 'nobody here wants this one');
mq.publish('flight.BOS.JFK', JSON.stringify({ delayed: 12 }), { headers: { Unit: 'minutes' } });
setTimeout(() => mq.publish('flight.ORD.JFK', 'landed'), 10);

let seen = 0;
for await (const flight of board) {
  const unit = flight.header('unit');
  console.log(flight.subject, flight.text(), unit === undefined ? '' : unit.toString());
  seen += 1;
  if (flight.text() === 'landed') break;
}
mq.close();
process.exitCode = seen === 3 ? 0 : 1;
