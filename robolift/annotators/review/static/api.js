// The server's answers; the only module that knows its addresses.

const PATIENCE_MS = 30_000;

/** What the server refused, or that it could not be reached (`status` 0). */
export class ApiError extends Error {
  constructor(status, detail, body = {}) {
    super(detail);
    this.status = status;
    this.body = body;
  }

  /** Worth another try, unchanged. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export class Api {
  sessionId = null;
  #csrf = "";
  #version = "";

  /** Who this is and what the job asks; also what makes later posts acceptable. */
  async session() {
    const session = await this.#ask("/api/session");
    this.#csrf = session.csrf;
    this.sessionId = session.session;
    this.#version = session.dataset.version;
    return session;
  }

  next(mode, after) {
    return this.#post("/api/next", { mode, after });
  }

  lease(item, action, epoch, { leaving = false } = {}) {
    return this.#post("/api/lease", { item, action, epoch }, { keepalive: leaving });
  }

  /** `seen`: the last stored event that the annotator knew of, where it counts; undefined leaves it out. */
  events(item, { epoch, events, seen }, { leaving = false } = {}) {
    return this.#post("/api/events", { item, epoch, events, seen }, { keepalive: leaving });
  }

  items(mode) {
    return this.#ask(`/api/items?mode=${mode}`);
  }

  episode(index) {
    return this.#ask(`/api/episodes/${index}`);
  }

  lanes(index) {
    return this.#ask(`/api/episodes/${index}/lanes`);
  }

  others(index) {
    return this.#ask(`/api/episodes/${index}/others`);
  }

  pair(id) {
    return this.#ask(`/api/pairs/${encodeURIComponent(id)}`);
  }

  /** The annotator's own events of an item, in order. */
  mine(item) {
    const [kind, id] = splitItem(item);
    return this.#ask(`/api/${kind === "pair" ? "pairs" : "episodes"}/${encodeURIComponent(id)}/mine`);
  }

  progress() {
    return this.#ask("/api/progress");
  }

  disagreements() {
    return this.#ask("/api/disagreements");
  }

  /** What there is to see, named "episodes/3" or "clips/3". */
  footage(name) {
    return this.#ask(`/api/${name}`);
  }

  /** JPEGs of the frames [start, stop) of a camera, as views of one buffer. */
  async frames(footage, camera, start, stop, signal) {
    const address = `/api/${footage}/frames/${encodeURIComponent(camera)}?start=${start}&stop=${stop}&v=${this.#version}`;
    return unpack(await this.#send(address, { signal }, (response) => response.arrayBuffer()));
  }

  async #post(address, body, options = {}) {
    const send = () =>
      this.#ask(address, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Robolift-CSRF": this.#csrf },
        body: JSON.stringify(body),
        ...options,
      });
    try {
      return await send();
    } catch (error) {
      // A server that was started anew has another token: ask for it once.
      if (error.status !== 403 || options.keepalive) throw error;
      await this.session();
      return send();
    }
  }

  #ask(address, options) {
    return this.#send(address, options, (response) => response.json());
  }

  /** A server may go away before its answer is whole, too: `read` takes it in. */
  async #send(address, options, read) {
    const late = AbortSignal.timeout(PATIENCE_MS);
    const signal = options?.signal ? AbortSignal.any([options.signal, late]) : late;
    let response;
    let body;
    try {
      response = await fetch(address, { credentials: "same-origin", ...options, signal });
      body = await (response.ok ? read(response) : response.json().catch(() => ({})));
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "the server does not answer");
    }
    if (response.ok) return body;
    const detail = typeof body.detail === "string" ? body.detail : JSON.stringify(body.detail ?? response.statusText);
    throw new ApiError(response.status, detail, body);
  }
}

/** "episode:12" -> ["episode", "12"]. */
export function splitItem(item) {
  const at = item.indexOf(":");
  return [item.slice(0, at), item.slice(at + 1)];
}

/** Takes a pack apart: "RLFP", count, count + 1 offsets from the first JPEG's start, JPEGs; little-endian. */
export function unpack(buffer) {
  const view = new DataView(buffer);
  if (view.getUint32(0, false) !== 0x524c4650) throw new ApiError(0, "this is no pack of frames");
  const count = view.getUint32(4, true);
  const first = 8 + 4 * (count + 1);
  const offset = (k) => first + view.getUint32(8 + 4 * k, true);
  return Array.from({ length: count }, (_, k) => new Uint8Array(buffer, offset(k), offset(k + 1) - offset(k)));
}
