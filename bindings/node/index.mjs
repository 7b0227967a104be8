// FAST MQ for Node, for `import`: the same objects as `require` gives.

import fastmq from './index.cjs';

export const {
  AbortError, Batch, Claim, Client, FastmqError, HEADER_BROKEN, HEADER_CLIENT, HEADER_SUBSCRIPTION,
  Headers, Message, Publisher, Queue, ReplyStream, Requester, SUBJECT_CONNECTED,
  SUBJECT_DISCONNECTED, SUBJECT_JOINED, SUBJECT_LEFT, SUBJECT_STATS, Server, Subscription,
  TimeoutError, abi, attach, connect, open, setLog, version,
} = fastmq;
export default fastmq;
