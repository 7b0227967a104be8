// Many answers to one request: a census that asks everybody, and a search that streams what it
// finds for as long as somebody wants to hear it.

import { open } from 'libfastmq';

const mq = open();

function isPrime(number) {
  for (let by = 2; by * by <= number; by += 1) if (number % by === 0) return false;
  return number > 1;
}

// What a generator gives is a stream; it goes no further than the asker's credit.
mq.respond('primes', async function* primes(request) {
  const end = request.text() === '' ? Infinity : Number(request.text());
  for (let number = 2; number < end; number += 1) if (isPrime(number)) yield String(number);
});
for (const city of ['Oslo', 'Lima', 'Kyoto']) mq.respond('census', () => `${city} is here`);

const here = await mq.requestMany('census');
console.log(here.map((answer) => answer.text()).sort().join(', '));

const below100 = [];
for await (const prime of mq.requestStream('primes', '100', { credit: 16 })) {
  below100.push(Number(prime.text()));
}
console.log(below100.length, 'primes below 100, the last is', below100.at(-1));

let taken = 0;
for await (const prime of mq.requestStream('primes')) {
  taken += 1;
  if (taken === 1000) {
    console.log('the 1000th prime is', prime.text());
    break; // Nobody wants more: the generator ends.
  }
}
mq.close();
process.exitCode = here.length === 3 && below100.length === 25 && taken === 1000 ? 0 : 1;
