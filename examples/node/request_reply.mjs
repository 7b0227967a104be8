// Requests: one that is awaited, many in flight, one that fails, and one that is given up.

import { open, FastmqError } from 'libfastmq';

const mq = open();
const service = mq.respond('square', async (request) => {
  const number = Number(request.text());
  if (Number.isNaN(number)) throw new FastmqError('FASTMQ_INVALID', 'that is no number');
  return String(number ** 2);
});

console.log('7 squared is', (await mq.request('square', '7')).text());

const numbers = Array.from({ length: 1000 }, (_, index) => String(index));
const answers = await Promise.all(numbers.map((number) => mq.request('square', number)));
console.log(answers.length, 'answers, the last is', answers.at(-1).text());

const failed = await mq.request('square', 'seven').catch((error) => error);
console.log(failed.code, failed.message);

const silent = mq.subscribe('silent'); // It listens, but never answers.
const late = await mq.request('silent', '', { signal: AbortSignal.timeout(20) })
  .catch((error) => error);
console.log(late.name, 'because of', late.cause.name);

silent.unsubscribe();
service.unsubscribe();
mq.close();
process.exitCode = answers.at(-1).text() === '998001' && failed.code === 'FASTMQ_INVALID' ? 0 : 1;
