// A headless Chromium, driven over a pipe by the DevTools protocol: messages of JSON, each ended by
// a zero byte, on the descriptors 3 and 4.

import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PATIENCE_MS = 30_000;
const COMPLAINTS = ['error', 'warning'];

export class Chromium {
  #process;
  #profile;
  #number = 0;
  #answers = new Map();
  #pages = new Map();

  /** Starts the program at `path`. */
  static async start(path) {
    const profile = await mkdtemp(join(tmpdir(), 'chromium-'));
    return new Chromium(path, profile);
  }

  constructor(path, profile) {
    this.#profile = profile;
    this.#process = spawn(path, [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
      '--hide-scrollbars', '--no-first-run', '--disable-background-networking',
      '--remote-debugging-pipe', `--user-data-dir=${profile}`,
    ], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    let rest = Buffer.alloc(0);
    this.#process.stdio[4].on('data', (bytes) => {
      rest = Buffer.concat([rest, bytes]);
      for (let end; (end = rest.indexOf(0)) >= 0; rest = rest.subarray(end + 1)) {
        this.#take(JSON.parse(rest.subarray(0, end).toString()));
      }
    });
    this.#process.on('exit', () => {
      for (const { reject } of this.#answers.values()) reject(new Error('Chromium has ended'));
    });
  }

  #take(message) {
    const waiting = this.#answers.get(message.id);
    if (waiting !== undefined) {
      this.#answers.delete(message.id);
      if (message.error) waiting.reject(new Error(message.error.message));
      else waiting.resolve(message.result);
    } else {
      this.#pages.get(message.sessionId)?.take(message.method, message.params);
    }
  }

  /** Calls a method of the protocol. */
  call(method, params = {}, sessionId = undefined) {
    this.#number += 1;
    const id = this.#number;
    this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#answers.set(id, { resolve, reject }));
  }

  /** Opens a page of so many pixels, and waits until it has loaded. */
  async open(url, width, height) {
    const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId, targetId);
    this.#pages.set(sessionId, page);
    await page.open(url, width, height);
    return page;
  }

  async close() {
    const ended = once(this.#process, 'exit');
    await this.call('Browser.close').catch(() => {});
    await ended;
    await rm(this.#profile, { recursive: true, force: true });
  }
}

export class Page {
  /** What the console has said of errors and warnings, and exceptions that nobody caught. */
  complaints = [];
  #browser;
  #session;
  #target;

  constructor(browser, session, target) {
    this.#browser = browser;
    this.#session = session;
    this.#target = target;
  }

  call(method, params) {
    return this.#browser.call(method, params, this.#session);
  }

  take(method, params) {
    if (method === 'Runtime.exceptionThrown') {
      this.complaints.push(params.exceptionDetails.exception?.description ?? 'an exception');
    } else if (method === 'Runtime.consoleAPICalled' && COMPLAINTS.includes(params.type)) {
      this.complaints.push(params.args.map((value) => value.value ?? value.description).join(' '));
    } else if (method === 'Log.entryAdded' && COMPLAINTS.includes(params.entry.level)) {
      this.complaints.push(`${params.entry.text} ${params.entry.url ?? ''}`);
    }
  }

  async open(url, width, height) {
    for (const domain of ['Page', 'Runtime', 'Log', 'Accessibility']) {
      await this.call(`${domain}.enable`);
    }
    await this.resize(width, height);
    await this.call('Page.navigate', { url });
  }

  async resize(width, height) {
    const metrics = { width, height, deviceScaleFactor: 1, mobile: false };
    await this.call('Emulation.setDeviceMetricsOverride', metrics);
  }

  /** What an expression gives in the page; a promise is awaited there. */
  async evaluate(expression) {
    const { result, exceptionDetails } = await this.call('Runtime.evaluate', {
      expression, awaitPromise: true, returnByValue: true,
    });
    if (exceptionDetails) {
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    }
    return result.value;
  }

  /** Waits until an expression is true, looking at each frame. */
  async until(expression) {
    const isTrue = await this.evaluate(`new Promise((resolve) => {
      const end = performance.now() + ${PATIENCE_MS};
      const look = () => {
        let isTrue = false;
        try { isTrue = Boolean(${expression}); } catch {}
        if (isTrue || performance.now() > end) resolve(isTrue);
        else requestAnimationFrame(look);
      };
      look();
    })`);
    if (!isTrue) throw new Error(`not within ${PATIENCE_MS} ms: ${expression}`);
  }

  async screenshot(path) {
    const { data } = await this.call('Page.captureScreenshot', { format: 'png' });
    await writeFile(path, Buffer.from(data, 'base64'));
  }

  async close() {
    await this.#browser.call('Target.closeTarget', { targetId: this.#target });
  }
}
