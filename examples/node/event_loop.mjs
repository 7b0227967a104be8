// The event loop: messages of another thread, beside a timer, and a process that ends by itself
// when nothing is awaited any more. There is no thread for a subscription.

import { Worker, isMainThread, workerData } from 'node:worker_threads';
import { attach, open } from 'libfastmq';

const READINGS = 1000;

if (isMainThread) {
  const mq = open();
  const readings = mq.subscribe('sensor.*');
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
  }, 2);

  const worker = new Worker(new URL(import.meta.url), { workerData: mq.share() });
  const signal = AbortSignal.timeout(10_000);
  let received = 0;
  for await (const batch of readings.batches({ max: 64, signal })) {
    for (const reading of batch) received += reading.payload.readUInt32LE() < READINGS ? 1 : 0;
    if (received === READINGS) break;
  }
  await new Promise((resolve) => {
    worker.on('exit', resolve);
  });
  console.log(`one loop saw ${received} messages, and ${ticks > 0 ? 'some' : 'no'} ticks`);
  clearInterval(timer);
  // Nothing is closed here: an idle process ends.
  process.exitCode = received === READINGS ? 0 : 1;
} else {
  const mq = attach(workerData);
  const sensor = mq.publisher('sensor.reading');
  for (let index = 0; index < READINGS; index += 1) {
    await sensor.publishWait(new Uint32Array([index]));
    if (index % 100 === 0) await new Promise((resolve) => {
      setTimeout(resolve, 1);
    });
  }
}
