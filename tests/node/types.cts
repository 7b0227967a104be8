// Compiled, never run: what users write, by `require`.

import fastmq = require('libfastmq');

const client: fastmq.Client = fastmq.open();
client.publish('a', Buffer.alloc(1), { headers: [['a', 'b']], keepLast: true });
const error = new fastmq.TimeoutError();
const code: 'FASTMQ_OK' | string = error.code;
console.log(code, fastmq.version, fastmq.abi, fastmq.SUBJECT_JOINED);
