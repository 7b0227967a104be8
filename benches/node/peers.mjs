// The peers of the Node rows, where they are installed: `zeromq` in this process and over TCP,
// `nats` over TCP to the server of NATS_URL. Found from the folder of PEERS (default: here).

import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const from = path.join(path.resolve(process.env.PEERS ?? import.meta.dirname ?? '.'), 'x.js');
const require = createRequire(pathToFileURL(from));
export const rows = {};

function find(name) {
  try {
    return require(name);
  } catch {
    console.error(`${name} is not installed`);
    return null;
  }
}

const nats = process.env.NATS_URL === undefined ? null : find('nats');
if (nats !== null) {
  rows['nats over tcp, two clients, each way'] = async (mq, after, payloads) => {
    const [one, two] = await Promise.all([1, 2].map(
      () => nats.connect({ servers: process.env.NATS_URL })));
    after(() => one.close(), () => two.close());
    const messages = two.subscribe('bench')[Symbol.asyncIterator]();
    await two.flush();
    let waiting = 0;
    return async () => {
      for (const payload of payloads) one.publish('bench', payload);
      waiting += payloads.length;
      // As many may be under way as in the rows of fastmq.
      for (; waiting > 8 * payloads.length; waiting -= 1) await messages.next();
      return payloads.length;
    };
  };
  rows['nats requests over tcp, two clients, 256 in flight'] = async (mq, after, payloads) => {
    const [one, two] = await Promise.all([1, 2].map(
      () => nats.connect({ servers: process.env.NATS_URL })));
    after(() => one.close(), () => two.close());
    two.subscribe('ask', { callback: (error, message) => message.respond(message.data) });
    await two.flush();
    return async () => {
      const open = payloads.slice(0, 256).map((payload) => one.request('ask', payload));
      return (await Promise.all(open)).length;
    };
  };
}

const zeromq = find('zeromq');
if (zeromq !== null) {
  for (const url of ['inproc://bench', 'tcp://127.0.0.1:*']) {
    rows[`zeromq push-pull ${url.split(':')[0]}, each way`] = async (mq, after, payloads) => {
      const push = new zeromq.Push({ sendHighWaterMark: 0 });
      const pull = new zeromq.Pull({ receiveHighWaterMark: 0 });
      await pull.bind(url);
      push.connect(pull.lastEndpoint);
      after(() => push.close(), () => pull.close());
      return async () => {
        const receive = async () => {
          for (let got = 0; got < payloads.length; got += 1) await pull.receive();
        };
        const received = receive();
        for (const payload of payloads) await push.send(payload);
        await received;
        return payloads.length;
      };
    };
  }
}
