// What was said and is not stored yet. It lives in localStorage, so neither a reload nor a lost network loses a mark.

const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const WAIT_MS = 200;
const BATCH = 200;
const BACK_OFF_MS = [500, 1000, 2000, 4000, 5000];

/** A ULID: 48 bits of time and 80 random ones, 26 characters. */
export function ulid(now = Date.now()) {
  let time = "";
  for (let rest = now, k = 0; k < 10; k += 1, rest = Math.floor(rest / 32)) time = CROCKFORD[rest % 32] + time;
  const random = crypto.getRandomValues(new Uint8Array(16));
  return time + Array.from(random, (byte) => CROCKFORD[byte % 32]).join("");
}

export class Outbox {
  #waiting = []; // events in the order in which they were made
  #epochs = new Map(); // item -> epoch of the lease under which it may be posted
  #stored = new Map(); // item -> ulid of the last event that is stored, null for none
  #chain = Promise.resolve();
  #timer = null;
  #failures = 0;
  #signedOut = false;
  #seq = 0; // as high as the counter in storage, or higher where storage is full
  #unkept = new Set(); // ulids of events that storage did not take
  #refused = new Map(); // item -> why the server does not take its events

  /**
   * @param {object} options api; scope, which names job and annotator; storage, localStorage; onChange(summary);
   *   onLost(item, error), when the lease is not ours or an event is refused
   */
  constructor({ api, scope, storage = localStorage, onChange, onLost }) {
    Object.assign(this, { api, storage, onChange, onLost, prefix: `robolift.outbox.${scope}.` });
    this.counter = `robolift.seq.${scope}`;
    const keys = Object.keys(storage).filter((key) => key.startsWith(this.prefix));
    this.#waiting = keys.map((key) => JSON.parse(storage.getItem(key))).sort((a, b) => a.seq - b.seq);
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden && this.#leave());
  }

  /** Makes an event durable here and sends it soon. `knew` counts the annotator's events on the item that the page showed. */
  add(item, op, fields, knew) {
    const seq = this.#nextSeq();
    const event = { ulid: ulid(), item, seq, op, from: null, to: null, value: null, client_ms: Date.now(), knew, ...fields };
    this.#keep(event);
    this.#waiting.push(event);
    this.#changed();
    this.#schedule(WAIT_MS);
    return event;
  }

  #keep(event) {
    if (!this.#write(this.prefix + event.ulid, JSON.stringify(event))) this.#unkept.add(event.ulid);
  }

  /** Full storage takes nothing: what it should hold is in memory only then, which must be told. */
  #write(key, text) {
    try {
      this.storage.setItem(key, text);
      return true;
    } catch {
      return false;
    }
  }

  #count(atLeast) {
    this.#seq = Math.max(this.#seq, Number(this.storage.getItem(this.counter) ?? 0), atLeast);
    this.#write(this.counter, String(this.#seq));
  }

  #nextSeq() {
    this.#count(0); // another window counts, too
    this.#count(this.#seq + 1);
    return this.#seq;
  }

  /** What the server has of `item`, in order: these wait no more, and the counter never falls behind them. */
  learn(item, events) {
    this.#count(events.reduce((highest, { seq }) => Math.max(highest, seq), 0));
    this.#stored.set(item, events.at(-1)?.ulid ?? null);
    this.#forget(events.map((event) => event.ulid));
    this.#changed();
  }

  /** Waiting completions of `item` that were said before all of the server's `events` were on the screen. */
  unseen(item, events) {
    const stored = new Set(events.map((event) => event.ulid));
    const waiting = this.of(item).filter((event) => !stored.has(event.ulid));
    return waiting.filter((event, ahead) => event.op === "complete" && event.knew !== events.length + ahead);
  }

  /** Takes events back that were not sent. */
  withdraw(events) {
    this.#forget(events.map((event) => event.ulid));
    this.#changed();
  }

  of(item) {
    return this.#waiting.filter((event) => event.item === item);
  }

  items() {
    return [...new Set(this.#waiting.map((event) => event.item))];
  }

  get summary() {
    const refused = [...this.#refused].map(([item, why]) => ({ item, why, count: this.of(item).length }));
    return {
      unsaved: this.#waiting.length,
      offline: this.#failures > 0,
      signedOut: this.#signedOut,
      refused: refused.filter(({ count }) => count),
      kept: this.#unkept.size === 0,
    };
  }

  /** From now on events of `item` go out under this lease. */
  allow(item, epoch) {
    this.#epochs.set(item, epoch);
    this.#refused.delete(item);
    this.#schedule(0);
  }

  forbid(item) {
    this.#epochs.delete(item);
  }

  /** Runs `work` while nothing is being posted: a renewed lease must not overtake a post made under the old one. */
  exclusive(work) {
    const result = this.#chain.then(work);
    this.#chain = result.catch(() => undefined);
    return result;
  }

  /** Sends all that may go; true when nothing of `item` is left here. */
  async settle(item) {
    clearTimeout(this.#timer);
    this.#timer = null;
    await this.exclusive(() => this.#post());
    return this.of(item).length === 0;
  }

  hurry() {
    this.#schedule(0);
  }

  /** Forgets events that the annotator decided to give up, and returns them. */
  discard(item) {
    const gone = this.of(item);
    this.#forget(gone.map((event) => event.ulid));
    this.#refused.delete(item);
    this.#changed();
    return gone;
  }

  #schedule(delay) {
    if (this.#timer !== null && delay > 0) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.exclusive(() => this.#post());
    }, delay);
  }

  async #post() {
    for (const item of this.items()) {
      while (this.#epochs.has(item) && !this.#refused.has(item) && this.of(item).length) {
        if (!(await this.#postBatch(item))) return;
      }
    }
  }

  /** One request; false when the server can't be reached, so that the rest waits too. */
  async #postBatch(item) {
    try {
      const { stored } = await this.api.events(item, this.#batch(item));
      this.#failures = 0;
      this.#arrived(item, stored);
      return stored.length > 0;
    } catch (error) {
      return this.#failed(item, error);
    }
  }

  /** What goes out next; a completion goes with what was last stored before it, so that nothing unseen is completed. */
  #batch(item) {
    const waiting = this.of(item).slice(0, BATCH);
    const completes = waiting.some(({ op }) => op === "complete");
    return {
      epoch: this.#epochs.get(item),
      events: waiting.map(({ item: _, knew: __, ...event }) => event),
      seen: completes && this.#stored.has(item) ? this.#stored.get(item) : undefined,
    };
  }

  #failed(item, error) {
    this.#signedOut = error.status === 401;
    if (error.passing || error.status === 401 || error.status === 403) {
      this.#schedule(BACK_OFF_MS[Math.min(this.#failures, BACK_OFF_MS.length - 1)]);
      this.#failures += 1;
      this.#changed();
      return false;
    }
    this.#refused.set(item, error.message);
    this.#epochs.delete(item);
    this.#changed();
    this.onLost(item, error);
    return true;
  }

  /** The page goes away: one last try that outlives it. What does not arrive is still in storage. */
  #leave() {
    for (const item of this.items()) {
      if (this.#epochs.has(item)) {
        this.api.events(item, this.#batch(item), { leaving: true }).then(
          ({ stored }) => this.#arrived(item, stored),
          () => undefined,
        );
      }
    }
  }

  #arrived(item, stored) {
    this.#stored.set(item, stored.at(-1));
    this.#forget(stored);
    this.#changed();
  }

  #forget(ulids) {
    const gone = new Set(ulids);
    for (const id of gone) {
      this.storage.removeItem(this.prefix + id);
      this.#unkept.delete(id);
    }
    this.#waiting = this.#waiting.filter((event) => !gone.has(event.ulid));
  }

  #changed() {
    this.onChange(this.summary);
  }
}
