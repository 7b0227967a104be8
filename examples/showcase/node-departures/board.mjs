// A live departure board in the browser, fed by a latest queue.
//
//     publishers --departure.AIRPORT--> fastmq serve --> this program --> browsers
//
// Of each airport only the newest departure matters. The queue keeps that one, at the server too,
// however fast departures come; this program looks ten times a second.
//
//     board.mjs [--url URL] [--port N] [--replay]

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { connect } from 'libfastmq';
import { Browser } from './browser.mjs';
import { Departures } from './departures.mjs';

const LOOK_MS = 100;
const PAGE = readFileSync(new URL('page.html', import.meta.url));
const HEADERS = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; connect-src 'self'; img-src data:; "
    + "script-src 'unsafe-inline'; style-src 'unsafe-inline'",
  'X-Content-Type-Options': 'nosniff',
};

const departures = new Departures();
const browsers = new Set();

function answer(request, response) {
  const path = request.url.split('?')[0];
  if (request.method !== 'GET') {
    response.writeHead(405, { Allow: 'GET' }).end();
  } else if (path === '/') {
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'text/html; charset=utf-8' }).end(PAGE);
  } else if (path === '/board.json') {
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'application/json' });
    response.end(JSON.stringify(departures.of(departures.newest.keys())));
  } else if (path === '/events') {
    const browser = new Browser(departures, response);
    browsers.add(browser);
    response.on('close', () => browsers.delete(browser));
  } else {
    response.writeHead(404).end();
  }
}

function tell(airports) {
  for (const browser of browsers) browser.tell(airports);
}

function onEvent({ kind }) {
  if (kind !== 'connected' && kind !== 'disconnected') return;
  departures.isConnected = kind === 'connected';
  tell([]);
}

/** Shows what comes until the client is closed. */
async function follow(queue) {
  for await (const batch of queue.batches({ max: 0 })) {
    tell(departures.take(batch));
    batch.close();
    await pause(LOOK_MS); // who looks less often misses nothing that still matters
  }
}

const { values: options } = parseArgs({
  options: {
    url: { type: 'string', default: 'tcp://127.0.0.1:4860' },
    port: { type: 'string', default: '8080' },
    replay: { type: 'boolean', default: false },
  },
});
try {
  const mq = await connect(options.url, { name: 'departure board', onEvent });
  const queue = mq.queue({ policy: 'latest' });
  const subscription = mq.subscribe('departure.*', { queue });
  const server = createServer(answer).listen(Number(options.port), '127.0.0.1');
  await once(server, 'listening');
  console.log(`departures: http://127.0.0.1:${server.address().port}/`);

  // The flights of examples/data, from a publisher in a process of its own.
  const replay = options.replay && spawn(
    process.execPath,
    [fileURLToPath(new URL('replay.mjs', import.meta.url)), '--url', options.url],
    { stdio: 'inherit' },
  );
  const stop = () => {
    if (replay) replay.kill();
    server.close();
    server.closeAllConnections();
    mq.close();
  };
  process.once('SIGINT', stop).once('SIGTERM', stop);
  await follow(queue);
  subscription.close();
} catch (error) {
  console.error(`departures: ${error.message}`);
  process.exit(1);
}
