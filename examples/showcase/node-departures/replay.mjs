// Publishes the departures of examples/data/flights.csv, three months of them, in so many seconds.
//
//     replay.mjs [--url URL] [--file PATH] [--seconds N]        0: as fast as it goes

import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { connect } from 'libfastmq';

const { values: options } = parseArgs({
  options: {
    url: { type: 'string', default: 'tcp://127.0.0.1:4860' },
    file: {
      type: 'string',
      default: fileURLToPath(new URL('../../data/flights.csv', import.meta.url)),
    },
    seconds: { type: 'string', default: '1800' },
  },
});
try {
  const lines = readFileSync(options.file, 'ascii').trimEnd().split('\n').slice(1);
  const pauseMs = (Number(options.seconds) * 1000) / lines.length;
  const mq = await connect(options.url, { name: 'departure replay' });
  const start = performance.now();
  for (const [index, line] of lines.entries()) {
    const [time, delay, miles, from, to] = line.split(',');
    const early = start + index * pauseMs - performance.now();
    if (early > 0) await pause(early);
    const departure = { time, to, delay: Number(delay), miles: Number(miles) };
    await mq.publishWait(`departure.${from}`, JSON.stringify(departure), { timeout: 30_000 });
  }
  await mq.drain();
  mq.close();
} catch (error) {
  console.error(`replay: ${error.message}`);
  process.exit(1);
}
