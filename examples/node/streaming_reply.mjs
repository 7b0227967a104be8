// Many answers to one request: a census that asks everybody, and a search that streams what it
// finds for as long as somebody wants to hear it.

import { open } from 'libfastmq';

const mq = open();

function isPrime(number) {
  for (let by = 2; by * by <= number; by += 1) if (number % by === 0) return false;
  return number > 1;
}

/** Asks for the primes below `end` and takes `wanted` of them at most; how many came. */
async function takePrimes(end, wanted) {
  let count = 0;
  let last = 0;
  // As far as the credit may the search be ahead.
  for await (const prime of mq.requestStream('primes', end, { credit: 16 })) {
    last = Number(prime.text());
    count += 1;
    if (count === wanted) {
      console.log(`${count} primes are enough, the last is ${last}`);
      return count; // Nobody wants more: the generator ends.
    }
  }
  console.log(`${count} primes below ${end}, the last is ${last}`);
  return count;
}

// Everybody who listens gets the question; one call waits for the answers of all.
for (let member = 0; member < 3; member += 1) mq.respond('census', () => 'here');
const members = await mq.requestMany('census', '', { timeout: 1000 });
console.log(`${members.length} members are here`);

// What a generator gives is a stream. It waits while the asker is behind.
let stopped;
const hasStopped = new Promise((resolve) => { stopped = resolve; });
mq.respond('primes', async function* primes(question) {
  const end = Number(question.text() || Infinity);
  let number = 2;
  try {
    for (; number < end; number += 1) if (isPrime(number)) yield String(number);
  } finally {
    if (number < end) {
      console.log('the search has stopped');
      stopped();
    }
  }
});
// A stream to its end, and one that is left when there is enough.
const below = await takePrimes('1000', Infinity);
const some = await takePrimes('', 5000);
await hasStopped;
mq.close();
process.exitCode = members.length === 3 && below === 168 && some === 5000 ? 0 : 1;
