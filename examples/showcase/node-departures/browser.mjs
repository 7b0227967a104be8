// One browser that looks at the board, by server-sent events.
//
// What it has not taken yet is a set of airports, not a list of events. So a slow browser takes
// bounded memory, holds nobody up, and sees the newest state when it is back: what the latest queue
// does for this program, this does for a browser.

export class Browser {
  #departures;
  #response;
  #changed;
  #isFull = false;

  constructor(departures, response) {
    this.#departures = departures;
    this.#response = response;
    this.#changed = new Set(departures.newest.keys());
    response.writeHead(200, {
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
    });
    response.write('retry: 1000\n\n'); // milliseconds after which a page that is cut off asks again
    response.on('drain', () => {
      this.#isFull = false;
      if (this.#changed.size > 0) this.#send();
    });
    this.#send(); // all there is, at once
  }

  /** Tells it that airports have changed, or something else if there are none. */
  tell(airports) {
    for (const airport of airports) this.#changed.add(airport);
    if (!this.#isFull) this.#send();
  }

  #send() {
    const text = JSON.stringify(this.#departures.of(this.#changed));
    this.#changed.clear();
    this.#isFull = !this.#response.write(`data: ${text}\n\n`);
  }
}
