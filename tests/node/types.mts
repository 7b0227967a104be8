// Compiled, never run: what users write, by `import`.

import fastmq, { connect, open, setLog } from 'libfastmq';
import type { Answers, Batch, Client, Code, FastmqError, Message, Queue } from 'libfastmq';

const client: Client = open({ memoryMax: 1 << 20, timestamps: 'tsc', memory: ['prefault'] });
const queue: Queue = client.queue({ policy: 'latest', capacity: 4096 });
const subscription = client.subscribe('a.*', { queue, tag: 1 });
for await (const message of subscription) {
  const text: string = message.text() + message.subject + message.payload.toString('hex');
  const time: bigint = message.timestampNs + message.token;
  console.log(text, time, message.header('name')?.length);
}
for await (const batch of subscription.batches({ max: 10 })) {
  for (const message of batch) message.reply('x', { code: 'FASTMQ_BUSY', headers: { a: 'b' } });
}
const batch: Batch | null = queue.tryReceive();
const one: Message | undefined = batch?.at(0);
client.subscribe('a', (message) => console.log(message.text()));
client.subscribe('a', { onError: (error, message) => console.log(error, message) }, async () => {});
client.respond('a', (request) => request.payload);
client.respond('a', async () => new Float64Array(1));
client.respond('a', async function* stream() {
  yield 'a';
  yield new DataView(new ArrayBuffer(1));
});
client.respond('a', { group: 'g' }, () => {});
const answer: Message = await client.request('a', 'x', { signal: AbortSignal.timeout(1) });
const all: Answers = await client.requestMany('a', undefined, { answersMax: 3, gap: 5 });
const code: Code = all.code;
for await (const reply of client.requestStream('a', null, { credit: 4 })) console.log(reply.text());
const requester = client.requester({ subject: 'a' });
const answers: Message[] = await requester.requestBatch(['a', new Uint8Array(1)]);
const publisher = client.publisher('a');
const accepted: number = publisher.publishBatch(['a', Buffer.alloc(1)])
  + publisher.publishColumns(new Uint8Array(3), Uint32Array.of(0, 1, 3));
publisher.claim(5).bytes.fill(1);
await publisher.publishWait('a', { key: 'k', timeout: 5 });
client.publishBatch([{ subject: 'a' }, { subject: 'b', payload: 'x', ttl: 5 }]);
const remote = await connect(['tcp://127.0.0.1:1', 'unix:/x'], {
  token: 'x', polled: true, onEvent: (event) => console.log(event.kind, event.count),
});
setLog('warn', (level, target, text) => console.log(level, target, text));
setLog('off');
await using server = client.listen('tcp://127.0.0.1:0', { insecure: true });
using other = fastmq.attach(client.share());
console.log(one, answer, code, answers, accepted, remote.statistics().published, server.url, other);
try {
  client.publish('a');
} catch (error) {
  if (error instanceof fastmq.FastmqError) {
    const known: FastmqError = error;
    if (known.code === 'FASTMQ_AGAIN') console.log(known.status, known.reply?.text());
  }
}

// @ts-expect-error There is no such option.
client.subscribe('a', { polcy: 'latest' });
// @ts-expect-error There is no such policy.
client.queue({ policy: 'newest' });
// @ts-expect-error A subject is a string.
client.publish(5);
// @ts-expect-error A number is no payload.
client.publish('a', 5);
// @ts-expect-error A client is made by open, connect or attach.
new fastmq.Client();
// @ts-expect-error A responder has a queue of its own.
client.respond('a', { queue }, () => {});
// @ts-expect-error There is no such code.
answer.code === 'FASTMQ_FINE';
// @ts-expect-error Messages are read, not written.
answer.subject = 'x';
