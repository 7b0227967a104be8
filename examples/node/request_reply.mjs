// Request and reply: a responder, one question at a time, many at a time, and the ways in which a
// question ends without an answer.

import { open, FastmqError } from 'libfastmq';

const QUESTIONS = 1000;
const mq = open();

// What it returns, or resolves to, is the answer; what it throws refuses the question.
mq.respond('math.square', async (question) => {
  const number = Number(question.text());
  if (Number.isNaN(number)) throw new FastmqError('FASTMQ_INVALID', 'not a number');
  return String(number ** 2);
});

console.log('12 squared is', (await mq.request('math.square', '12', { timeout: 5000 })).text());

// A thousand questions without waiting in between.
const numbers = Array.from({ length: QUESTIONS }, (_, number) => number);
const answers = await Promise.all(
  numbers.map((number) => mq.request('math.square', String(number), { timeout: 5000 })),
);
const right = numbers.filter((number) => Number(answers[number].text()) === number ** 2).length;
console.log(`${right} of ${QUESTIONS} answers are right`);

// The responder may refuse: its code and its words are in the error.
const refused = await mq.request('math.square', 'twelve').catch((error) => error);
console.log(`math.square of twelve: ${refused.code}, ${refused.reply?.text()}`);

// Nobody listens: the engine says so at once, whatever the time-out.
const nobody = await mq.request('math.cube', '12', { timeout: Infinity }).catch((error) => error);
console.log('math.cube:', nobody.code);

mq.close();
const isRight = right === QUESTIONS && refused.code === 'FASTMQ_INVALID'
  && nobody.code === 'FASTMQ_NO_RESPONDER';
process.exitCode = isRight ? 0 : 1;
