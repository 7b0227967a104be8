// The newest departure of each airport, as a latest queue gives it.

const AIRPORT = /^[A-Z0-9]{3,4}$/;
const TIME = /^\d{4}\/\d\d\/\d\d \d\d:\d\d$/;
const AIRPORTS_MAX = 1000;

/** What a message says, or undefined: anybody may publish anything. */
function parse(message) {
  let departure;
  try {
    departure = message.json();
  } catch {
    return undefined;
  }
  const { time, to, delay, miles } = departure ?? {};
  const isOne = typeof time === 'string' && TIME.test(time)
    && typeof to === 'string' && AIRPORT.test(to)
    && Number.isInteger(delay) && Math.abs(delay) < 10_000
    && Number.isInteger(miles) && miles >= 0 && miles < 100_000;
  return isOne ? { time, to, delay, miles } : undefined;
}

export class Departures {
  /** By airport; `count` is how many there were, those that newer ones have replaced too. */
  newest = new Map();
  /** Messages that were received. */
  seen = 0;
  /** Messages that newer ones have replaced before they were received. */
  replaced = 0;
  /** There is a connection to the server of the queue. */
  isConnected = true;

  /** Takes messages of a latest queue; gives the airports that have changed. */
  take(batch) {
    const changed = [];
    for (const message of batch) {
      const airport = message.subject.slice(message.subject.indexOf('.') + 1);
      const departure = parse(message);
      const before = this.newest.get(airport);
      this.seen += 1;
      this.replaced += message.lostBefore;
      if (departure === undefined || !AIRPORT.test(airport)) continue;
      if (before === undefined && this.newest.size >= AIRPORTS_MAX) continue;
      const count = (before?.count ?? 0) + 1 + message.lostBefore;
      this.newest.set(airport, { ...departure, count });
      changed.push(airport);
    }
    return changed;
  }

  /** What a page is told: the newest of some airports, and the rest. */
  of(airports) {
    const rows = {};
    for (const airport of airports) rows[airport] = this.newest.get(airport);
    const { isConnected, seen, replaced } = this;
    return { rows, seen, replaced, isConnected };
  }
}
