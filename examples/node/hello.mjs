import { open } from 'libfastmq';     // or: const { open } = require('libfastmq')

const mq = open();                    // a broker in this process; connect(url) for one elsewhere
const flights = mq.subscribe('flight.*.JFK');
mq.publish('flight.LAX.JFK', 'delayed 12 minutes');
for await (const flight of flights) {
  console.log(flight.subject, flight.text());
  break;
}
mq.close();
