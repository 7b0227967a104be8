// Both showcases against one `fastmq serve`: the board in Node shows what the pipeline in Python
// publishes, a real browser shows the board. What they say is compared with the file.
//
// SHOWCASE is a folder with `data` and `showcase`, where `libfastmq` is found; FASTMQ the command.
// PYTHON, with `fastmq` and `rich`, and CHROMIUM may be missing: then their tests are skipped.
// SCREENSHOTS is a folder for pictures to look at.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, get } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { Chromium } from './chromium.mjs';

const { SHOWCASE, FASTMQ, PYTHON, CHROMIUM, SCREENSHOTS } = process.env;
const NODE = join(SHOWCASE, 'showcase/node-departures');
const REPLAY = join(NODE, 'replay.mjs');
const PIPELINE = join(SHOWCASE, 'showcase/python-flights/flights.py');
const FLIGHTS = join(SHOWCASE, 'data/flights.csv');
const { Browser } = await import(pathToFileURL(join(NODE, 'browser.mjs')));
const { Departures } = await import(pathToFileURL(join(NODE, 'departures.mjs')));

const flights = readFileSync(FLIGHTS, 'ascii').trim().split('\n').slice(1)
  .map((line) => line.split(','))
  .map(([time, delay, miles, from, to]) => ({
    time, delay: Number(delay), miles: Number(miles), from, to,
  }));

/** What the board shows at the end: of each airport the last flight, and how many there were. */
const newest = {};
for (const { from, time, to, delay, miles } of flights) {
  newest[from] = { time, to, delay, miles, count: (newest[from]?.count ?? 0) + 1 };
}

const work = mkdtempSync(join(tmpdir(), 'showcase-'));
const url = `unix:${join(work, 'mq.sock')}`;
const svg = join(work, 'flights.svg');
const children = new Set();
let chromium;

/** Starts a program; `out` is what it prints, whole when it has ended. */
function start(path, ...words) {
  const child = spawn(path, words, { stdio: ['ignore', 'pipe', 'inherit'], cwd: work });
  children.add(child);
  child.out = '';
  child.stdout.setEncoding('utf8').on('data', (text) => { child.out += text; });
  child.ended = once(child, 'close').then(([code]) => {
    children.delete(child);
    return code;
  });
  return child;
}

async function line(child) {
  while (!child.out.includes('\n')) {
    const ended = child.ended.then((code) => { throw new Error(`it ended with ${code}`); });
    await Promise.race([once(child.stdout, 'data'), ended]);
  }
  return child.out.split('\n')[0];
}

async function startServer() {
  const server = start(FASTMQ, 'serve', '--root', work, '--listen', url);
  assert.match(await line(server), /listening/);
  return server;
}

async function startBoard(port = 0) {
  const board = start(process.execPath, join(NODE, 'board.mjs'), '--url', url, '--port', `${port}`);
  board.url = (await line(board)).replace('departures: ', '');
  return board;
}

async function stop(child) {
  child.kill();
  return child.ended;
}

/** The events of a board, as they come. */
async function* events(address) {
  const [response] = await once(get(`${address}events`), 'response');
  let text = '';
  for await (const bytes of response.setEncoding('utf8')) {
    text += bytes;
    for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
      if (text.startsWith('data: ')) yield JSON.parse(text.slice(6, end));
    }
  }
}

/** Follows a board until it has counted so many departures; gives all that it shows. */
async function untilCounted(address, count) {
  const rows = {};
  for await (const event of events(address)) {
    Object.assign(rows, event.rows);
    if (event.seen + event.replaced === count) return rows;
    assert.ok(event.seen + event.replaced < count, 'no departure is counted twice');
  }
  return assert.fail('the board has ended');
}

let server;
before(async () => {
  server = await startServer();
  if (CHROMIUM) chromium = await Chromium.start(CHROMIUM);
});
after(async () => {
  await chromium?.close();
  await Promise.all([...children].map(stop));
  rmSync(work, { recursive: true, force: true });
});

/** What the page shows, read from its tiles and from what a screen reader is told. */
const SHOWN = `Object.fromEntries([...document.querySelectorAll('tbody tr')]
  .filter((row) => row.dataset.is)
  .map((row) => [row.dataset.airport, Object.fromEntries([...row.children].map((cell) => [
    cell.className, {
      tiles: cell.querySelector('.flaps').textContent.trim(),
      words: cell.querySelector('.words').textContent.trim(),
    }]))]))`;

function rowOf(airport, { time, to, delay, miles, count }) {
  const month = ['JAN', 'FEB', 'MAR'][Number(time.slice(5, 7)) - 1];
  const both = (text) => ({ tiles: String(text), words: String(text) });
  let status = { tiles: 'ON TIME', words: 'on time' };
  if (delay >= 15) status = { tiles: `LATE ${delay}`, words: `${delay} minutes late` };
  if (delay < 0) status = { tiles: `EARLY ${-delay}`, words: `${-delay} minutes early` };
  return {
    from: both(airport), to: both(to), date: both(`${month} ${time.slice(8, 10)}`),
    time: both(time.slice(11)), status, miles: both(miles), flights: both(count),
  };
}

const expected = Object.fromEntries(
  Object.entries(newest).map(([airport, departure]) => [airport, rowOf(airport, departure)]),
);

async function picture(page, name) {
  if (SCREENSHOTS) await page.screenshot(join(SCREENSHOTS, `${name}.png`));
}

function checkPipeline(output) {
  const airports = new Map();
  for (const { from, delay } of flights) {
    const at = airports.get(from) ?? { flights: 0, late: 0, sum: 0, worst: -Infinity };
    at.flights += 1;
    at.late += delay >= 15 ? 1 : 0;
    at.sum += delay;
    at.worst = Math.max(at.worst, delay);
    airports.set(from, at);
  }
  const rows = output.split('\n').filter((text) => /^[|│] [A-Z]{3} /.test(text))
    .map((text) => text.split(/[|│]/).slice(1, -1).map((cell) => cell.trim().replace(',', '')));
  const largest = [...airports].sort(([a, one], [b, two]) => two.flights - one.flights
    || (a < b ? -1 : 1)).slice(0, 12);
  assert.deepEqual(rows.map((row) => row[0]), largest.map(([airport]) => airport));
  for (const [index, [, at]] of largest.entries()) {
    const [, count, late, share, mean, worst] = rows[index];
    assert.deepEqual([count, late, worst].map(Number), [at.flights, at.late, at.worst]);
    // Python and JavaScript may round a half to different sides.
    assert.ok(Math.abs(parseFloat(share) - (100 * at.late) / at.flights) <= 0.051, share);
    assert.ok(Math.abs(Number(mean) - at.sum / at.flights) <= 0.051, mean);
  }
  assert.match(output, /checked  every flight was handled once/);
  assert.match(output, /all flights .* 20000\/20000/);
}

test('the pipeline says what is in the file, and the board shows what it publishes', async (t) => {
  if (!PYTHON) return t.skip('the Python package, or rich, is not there');
  const board = await startBoard();
  const all = untilCounted(board.url, flights.length);
  const pipeline = start(PYTHON, '-W', 'error', PIPELINE, '--url', url, '--plot', svg,
    '--file', FLIGHTS, '--seconds', '1');
  assert.equal(await pipeline.ended, 0);
  checkPipeline(pipeline.out);
  assert.deepEqual(await all, newest);
  assert.equal(await stop(board), 0);
});

test('the pipeline finds what would be wrong', async (t) => {
  if (!PYTHON) return t.skip('the Python package, or rich, is not there');
  const program = `
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from flights import check
from tally import read
flights = read(pathlib.Path(sys.argv[2]))
of_one = [number for number, flight in enumerate(flights) if flight.origin == flights[0].origin]
def handled(numbers, name="a"):
    return {"name": name, "handled": list(enumerate(numbers))}
everything = list(range(len(flights)))
def told(results, words):
    wrong = check(results, flights)
    assert words in " ".join(wrong) if words else not wrong, (words, wrong[:3])
told([handled(everything)], "")
told([handled(everything[:-1])], "19999 flights were handled, 19999 different ones")
told([handled(everything + everything[-1:])], "20001 flights were handled, 20000 different ones")
first, second = of_one[:2]
everything[first], everything[second] = second, first
told([handled(everything)], f"flight {first} from {flights[0].origin} was handled after flight")
told([handled(range(second)), {"name": "b", "handled": [(n, n) for n in range(second, 20000)]}],
     f"flights from {flights[0].origin} were handled by a and b")
`;
  const python = start(PYTHON, '-W', 'error', '-c', program, dirname(PIPELINE), FLIGHTS);
  assert.equal(await python.ended, 0);
  const lost = start(PYTHON, PIPELINE, '--url', `unix:${work}/nobody.sock`, '--file', FLIGHTS);
  assert.equal(await lost.ended, 2, 'there is no server');
});

test('a browser shows what is published, late and on a narrow page, too', async (t) => {
  if (!CHROMIUM) return t.skip('Chromium is not there');
  const board = await startBoard();
  const page = await chromium.open(board.url, 1280, 860);
  await page.until(`document.getElementById('link').textContent === 'waiting for departures'`);
  assert.deepEqual(await page.evaluate(SHOWN), {}, 'nothing has departed');
  await picture(page, 'empty');
  const replay = start(process.execPath, REPLAY, '--url', url, '--seconds', '1');

  const sum = `['seen', 'replaced'].map((id) => document.getElementById(id).textContent)
    .map((text) => Number(text.replaceAll(',', ''))).reduce((one, two) => one + two)`;
  await page.until(`${sum} === ${flights.length} && moving.size === 0`);
  assert.deepEqual(await page.evaluate(SHOWN), expected);
  assert.equal(await replay.ended, 0);
  const rows = `[...document.querySelectorAll('tbody tr')].filter((row) => row.checkVisibility())
    .map((row) => row.dataset.airport)`;
  assert.equal((await page.evaluate(rows)).length, 20);
  await picture(page, 'board');
  await page.evaluate(`document.querySelector('button').click()`);
  assert.deepEqual(await page.evaluate(rows), Object.keys(newest).sort());
  await picture(page, 'all');
  assert.deepEqual(page.complaints, []);
  await page.close();

  const late = await chromium.open(board.url, 400, 860);
  await late.until(`document.querySelector('[data-airport=STL][data-is]') && moving.size === 0`);
  assert.deepEqual(await late.evaluate(SHOWN), expected, 'a late page has all at once');
  assert.ok(await late.evaluate('document.scrollingElement.scrollWidth <= 400'), 'it fits');
  await picture(late, 'narrow');
  const { nodes } = await late.call('Accessibility.getFullAXTree');
  const named = (role, name) => nodes.some((node) => !node.ignored && node.role?.value === role
    && node.name?.value === name);
  assert.ok(named('table', 'The newest departure of each airport'));
  assert.ok(named('heading', 'Departures'));
  assert.ok(named('button', 'All airports'));
  assert.ok(nodes.some((node) => node.role?.value === 'rowheader'
    && node.name?.value.startsWith('ATL')));

  // It says what is gone, and goes on by itself.
  await stop(server);
  await late.until(`document.getElementById('link').textContent.includes('queue is gone')`);
  server = await startServer();
  await late.until(`document.getElementById('link').textContent === 'live'`);
  assert.deepEqual(late.complaints, []);
  await stop(board);
  await late.until(`document.getElementById('link').textContent.includes('board is gone')`);
  await stop(await startBoard(new URL(board.url).port)
    .then(async (again) => {
      await late.until(`document.getElementById('link').textContent === 'live'`);
      return again;
    }));
  await late.close();
});

test('a browser shows the plot', async (t) => {
  if (!PYTHON || !CHROMIUM) return t.skip('Chromium, or what draws the plot, is not there');
  const plot = await chromium.open(pathToFileURL(svg).href, 960, 440);
  await plot.until(`document.querySelectorAll('.airport').length === 12`);
  const title = `[...document.querySelectorAll('.hour')].at(-1).textContent`;
  const last = flights.filter(({ time }) => time.slice(11, 13) === '23');
  const mean = last.reduce((sum, { delay }) => sum + delay, 0) / last.length;
  assert.equal(await plot.evaluate(title), `23:00, ${mean.toFixed(1)} min`);
  assert.deepEqual(plot.complaints, []);
  await picture(plot, 'plot');
  await plot.close();
});

test('the replay feeds it too, and who looks late sees it at once', async () => {
  const board = await startBoard();
  const replay = start(process.execPath, REPLAY, '--url', url, '--seconds', '0');
  const all = untilCounted(board.url, flights.length);
  assert.equal(await replay.ended, 0);
  assert.deepEqual(await all, newest);
  for await (const { rows } of events(board.url)) {
    assert.deepEqual(rows, newest);
    break;
  }
  const answer = await fetch(`${board.url}board.json`);
  assert.deepEqual((await answer.json()).rows, newest);
  assert.equal((await fetch(`${board.url}nothing`)).status, 404);
  assert.equal((await fetch(board.url, { method: 'POST' })).status, 405);
  assert.equal(await stop(board), 0);
});

test('what is no departure is not shown', async () => {
  const departures = new Departures();
  const good = { time: '2001/01/01 00:47', to: 'LAS', delay: 66, miles: 1750 };
  const message = (airport, value) => ({
    subject: `departure.${airport}`, lostBefore: 0, json: () => JSON.parse(value),
  });
  const bad = ['', '7', 'null', '[]', '{}', JSON.stringify({ ...good, to: '<b>' }),
    JSON.stringify({ ...good, delay: '66' }), JSON.stringify({ ...good, miles: -1 }),
    JSON.stringify({ ...good, time: 'now' })];
  assert.deepEqual(departures.take(bad.map((value) => message('DTW', value))), []);
  assert.deepEqual(departures.take([message('toString', JSON.stringify(good))]), []);
  assert.deepEqual(departures.take([message('DTW', JSON.stringify(good))]), ['DTW']);
  assert.deepEqual(departures.of(['DTW']).rows, { DTW: { ...good, count: 1 } });
  assert.equal(departures.seen, bad.length + 2);
});

test('a slow browser holds nobody up and takes bounded memory', async (t) => {
  const departures = new Departures();
  const browsers = [];
  const http = createServer((_, response) => {
    browsers.push({ browser: new Browser(departures, response), response });
  }).listen(0, '127.0.0.1');
  t.after(() => {
    http.close();
    http.closeAllConnections();
  });
  await once(http, 'listening');
  const address = `http://127.0.0.1:${http.address().port}/`;

  let number = 0;
  const change = () => {
    number += 1;
    const batch = Object.entries(newest).map(([airport, { count, ...departure }]) => ({
      subject: `departure.${airport}`, lostBefore: 0, json: () => ({ ...departure, miles: number }),
    }));
    const airports = departures.take(batch);
    for (const { browser } of browsers) browser.tell(airports);
  };

  const [slow] = await once(get(`${address}events`), 'response');
  slow.pause();
  const [{ response }] = browsers;
  // The buffers of two sockets are full some time.
  for (let turn = 0; turn < 10_000 && !response.writableNeedDrain; turn += 1) {
    change();
    await new Promise(setImmediate);
  }
  assert.ok(response.writableNeedDrain, 'the slow one is slow');
  const waiting = response.writableLength;
  const quick = events(address);
  await quick.next();
  for (let turn = 0; turn < 100; turn += 1) {
    change();
    const { value } = await quick.next();
    assert.equal(value.rows.ATL.miles, number, 'the quick one has the newest');
  }
  assert.equal(response.writableLength, waiting, 'nothing more waits for the slow one');

  let text = '';
  let count = 0;
  for await (const bytes of slow.setEncoding('utf8')) {
    text += bytes;
    const whole = text.split('\n\n');
    text = whole.pop();
    const rows = whole.filter((event) => event.startsWith('data: '))
      .map((event) => JSON.parse(event.slice(6)).rows);
    count += rows.length;
    if (rows.at(-1)?.ATL?.miles === number) break;
  }
  // An empty board, a hundred changes as one, and the others.
  assert.ok(count <= 1 + 1 + number - 100, 'what was replaced meanwhile never comes');
});
