// Frames of a clip, of all its cameras: JPEG packs fetched in chunks, decoded to bitmaps around the frame shown.

import { ApiError } from "./api.js";

const FIRST = 8; // the first chunk is small, so the first frame is there at once
const CHUNK = 64;
const AHEAD = 10; // frames decoded beyond the one shown, in the direction of travel
const BEHIND = 3;
const BITMAPS = 48; // a camera; a bitmap of 480x640 takes 1.2 MB
const PACKS_BYTES = 256 * 2 ** 20;
const RETRY_MS = [300, 1000, 3000, 8000];

/** The chunk that holds frame k: [0, 8), [8, 64), [64, 128), ... cut at the episode's end. */
export function chunkOf(k, length) {
  const start = k < FIRST ? 0 : Math.max(FIRST, Math.floor(k / CHUNK) * CHUNK);
  const stop = k < FIRST ? FIRST : (Math.floor(k / CHUNK) + 1) * CHUNK;
  return [start, Math.min(stop, length)];
}

export class Clip {
  #packs = new Map(); // chunk start -> { stop, jpegs: [camera][frame], bytes, used }
  #fetching = new Map(); // chunk start -> promise
  #bitmaps = new Map(); // frame -> [bitmap of each camera], least recently wanted first
  #decoding = new Map(); // frame -> promise
  #ahead = 0;
  #abort = new AbortController();

  /** Frames [start, stop) of `footage` of `length` frames; `onTrouble(text | null)` hears of failed fetches. */
  constructor(api, { footage, cameras, length, start = 0, stop = length, onTrouble = () => undefined }) {
    Object.assign(this, { api, footage, cameras, length, start, stop, onTrouble });
  }

  /** Bitmaps of frame k, one a camera, if they are decoded already. */
  get(k) {
    return this.#bitmaps.get(k) ?? null;
  }

  /** Bitmaps of frame k as soon as every camera has it. */
  async load(k) {
    if (this.#bitmaps.has(k)) return this.#bitmaps.get(k);
    if (!this.#decoding.has(k)) {
      this.#decoding.set(k, this.#decode(k).finally(() => this.#decoding.delete(k)));
    }
    return this.#decoding.get(k);
  }

  /** Decodes and fetches around frame k, which was reached by a step of `stride` frames: another such step comes first. */
  around(k, stride = 1) {
    const direction = Math.sign(stride) || 1;
    const near = [stride, -stride, 2 * stride];
    for (let step = 1; step <= AHEAD; step += 1) {
      near.push(step * direction);
      if (step <= BEHIND) near.push(-step * direction);
    }
    this.#decodeAhead(near.map((step) => k + step).filter((frame) => frame >= this.start && frame < this.stop));
    this.#fetchAround(k, direction);
  }

  /** One frame after the other, and no further once the page has moved on: what is shown next must not queue behind. */
  async #decodeAhead(frames) {
    this.#ahead += 1;
    const turn = this.#ahead;
    for (const frame of frames) {
      if (turn !== this.#ahead) return;
      if (this.#packs.has(chunkOf(frame, this.length)[0])) await this.load(frame).catch(() => undefined);
    }
  }

  close() {
    this.#abort.abort();
    for (const bitmaps of this.#bitmaps.values()) bitmaps.forEach((bitmap) => bitmap.close());
    this.#bitmaps.clear();
    this.#packs.clear();
  }

  async #fetchAround(k, direction) {
    const near = [k, k + CHUNK * direction, k + 2 * CHUNK * direction, k - CHUNK * direction];
    for (const frame of near) {
      const inside = Math.max(this.start, Math.min(this.stop - 1, frame));
      try {
        await this.#chunk(inside, false);
      } catch {
        return; // the frame that is really needed tells of the trouble
      }
    }
  }

  async #decode(k) {
    const [start] = chunkOf(k, this.length);
    const pack = await this.#chunk(k, true);
    const jpegs = this.cameras.map((_, camera) => pack.jpegs[camera][k - start]);
    const decoded = jpegs.map((jpeg) => createImageBitmap(new Blob([jpeg], { type: "image/jpeg" })));
    const bitmaps = await Promise.all(decoded).catch(() => {
      throw new ApiError(415, `frame ${k} can't be decoded`);
    });
    if (this.#abort.signal.aborted) throw new DOMException("closed", "AbortError");
    this.#bitmaps.set(k, bitmaps);
    for (const [frame, old] of this.#bitmaps) {
      if (this.#bitmaps.size <= BITMAPS) break;
      old.forEach((bitmap) => bitmap.close());
      this.#bitmaps.delete(frame);
    }
    return bitmaps;
  }

  /** The pack of the chunk with frame k; with `insist`, failures are retried and told. */
  #chunk(k, insist) {
    const [start, stop] = chunkOf(k, this.length);
    const pack = this.#packs.get(start);
    if (pack) {
      pack.used = performance.now();
      return Promise.resolve(pack);
    }
    if (!this.#fetching.has(start)) {
      this.#fetching.set(start, this.#fetch(start, stop).finally(() => this.#fetching.delete(start)));
    }
    const fetched = this.#fetching.get(start);
    return insist ? fetched.catch((error) => this.#again(k, error)) : fetched;
  }

  async #fetch(start, stop) {
    const jpegs = await Promise.all(
      this.cameras.map((camera) => this.api.frames(this.footage, camera, start, stop, this.#abort.signal)),
    );
    const bytes = jpegs.flat().reduce((sum, jpeg) => sum + jpeg.byteLength, 0);
    const pack = { stop, jpegs, bytes, used: performance.now() };
    this.#packs.set(start, pack);
    this.#evict(start);
    return pack;
  }

  async #again(k, error) {
    for (let attempt = 0; ; attempt += 1) {
      if (error.name === "AbortError" || !error.passing) throw error;
      this.onTrouble(`frames don't arrive (${error.message}); trying again`);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]));
      try {
        const pack = await this.#chunk(k, false);
        this.onTrouble(null);
        return pack;
      } catch (next) {
        error = next;
      }
    }
  }

  /** Gives back the packs that were not wanted for longest; the browser's cache still has them. */
  #evict(keep) {
    let total = [...this.#packs.values()].reduce((sum, pack) => sum + pack.bytes, 0);
    const oldest = [...this.#packs].sort(([, a], [, b]) => a.used - b.used);
    for (const [start, pack] of oldest) {
      if (total <= PACKS_BYTES) return;
      if (start === keep) continue;
      this.#packs.delete(start);
      total -= pack.bytes;
    }
  }
}
