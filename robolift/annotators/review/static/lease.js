// The right to write about one item at a time, kept while the annotator works.

const ACTIVITY = ["keydown", "pointerdown", "wheel"];

export class Lease {
  item = null;
  #epoch = null;
  #expires = 0;
  #lasts = 0;
  #active = 0;
  #renewing = false;

  /** onLost(item, error) hears of a lease that someone else has, or that can't be renewed. */
  constructor({ api, outbox, onLost }) {
    Object.assign(this, { api, outbox, onLost });
    for (const kind of ACTIVITY) addEventListener(kind, () => this.#touched(), { passive: true, capture: true });
    addEventListener("pagehide", () => this.#leave());
    setInterval(() => this.#renew(), 1000);
  }

  /** The server gave a lease with the item, or on asking. */
  hold(item, { epoch, expires_in_s: lasts }) {
    this.item = item;
    this.#epoch = epoch;
    this.#lasts = lasts * 1000;
    this.#expires = performance.now() + this.#lasts;
    this.#active = performance.now();
    this.session = this.api.sessionId;
    this.outbox.allow(item, epoch);
  }

  /** Asks for the lease of `item`; an ApiError of status 409 says who has it. Nothing goes out under it before `look` is done. */
  async take(item, look) {
    const granted = await this.api.lease(item, "take");
    await look();
    this.hold(item, granted);
  }

  /** Gives the lease back, when nothing is left to be said under it. */
  async release() {
    const { item } = this;
    if (item === null) return;
    const epoch = this.#epoch;
    const settled = await this.outbox.settle(item);
    if (this.item !== item) return;
    this.item = null;
    if (!settled) return; // it runs out by itself; the marks go out before
    this.outbox.forbid(item);
    await this.api.lease(item, "release", epoch).catch(() => undefined);
  }

  /** Someone else has it: nothing may be sent under it any more. */
  drop() {
    if (this.item !== null) this.outbox.forbid(this.item);
    this.item = null;
  }

  /** The page goes away: the next person need not wait until the lease runs out. */
  #leave() {
    if (this.item === null || this.outbox.of(this.item).length) return;
    this.api.lease(this.item, "release", this.#epoch, { leaving: true }).catch(() => undefined);
  }

  #touched() {
    this.#active = performance.now();
  }

  /** Renews from the middle of its life on, while the annotator has done something in that half. */
  #renew() {
    const now = performance.now();
    const due = this.#expires - this.#lasts / 2;
    if (this.item === null || this.#renewing || now < due || this.#active < due - this.#lasts / 2) return;
    const { item } = this;
    this.#renewing = true;
    this.outbox
      .exclusive(async () => {
        if (this.item !== item) return;
        const active = this.#active;
        this.hold(item, await this.api.lease(item, "renew", this.#epoch));
        this.#active = active;
      })
      .catch((error) => {
        if (this.item !== item || error.passing || error.status === 401) return;
        this.drop();
        this.onLost(item, error);
      })
      .finally(() => {
        this.#renewing = false;
      });
  }
}
