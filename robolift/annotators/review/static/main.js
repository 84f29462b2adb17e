// Starts the page and moves between items; each view does the labelling itself.

import { Api, splitItem } from "./api.js";
import { askAboutLoss, download, tellNews } from "./dialogs.js";
import { aDialogIsOpen, el, fill, find, openDialog } from "./dom.js";
import { EpisodeView } from "./episode.js";
import { askReason, openDisagreements, openJob } from "./job.js";
import { fillSheet, listen, nameKeys } from "./keys.js";
import { Lease } from "./lease.js";
import { Outbox } from "./outbox.js";
import { PairView } from "./pairs.js";
import { Prefetch } from "./prefetch.js";

const RETRY_MS = 3000;

class App {
  api = new Api();
  view = null;
  item = null;
  mode = "episode";
  #moving = false;
  #afterwards = null;
  #retaken = new Set();
  #taking = new Set();

  async start() {
    this.session = await this.api.session();
    const { annotator, job, dataset, modes } = this.session;
    const scope = await scopeOf({ annotator, job, dataset });
    this.outbox = new Outbox({
      api: this.api,
      scope,
      onChange: (summary) => {
        this.#showSaved(summary);
        this.#doAfterwards();
      },
      onLost: (item, error) => this.#stale(item, error),
    });
    this.lease = new Lease({ api: this.api, outbox: this.outbox, onLost: (item, error) => this.#stale(item, error) });
    this.views = { episode: new EpisodeView(this), pair: new PairView(this) };
    this.prefetch = new Prefetch(this.api, this.session);
    this.mode = modes[0];
    find("#mode-button").hidden = modes.length < 2;
    this.#showSaved(this.outbox.summary);
    listen((command) => this.run(command), () => (aDialogIsOpen() ? null : { mode: this.mode, tools: this.#tools }));
    addEventListener("hashchange", () => this.#followHash());
    this.nameKeys();
    const named = location.hash.slice(1);
    if (/^(episode|pair):/.test(named)) await this.open(named);
    else await this.next();
    await this.#sendLeftovers();
  }

  get #tools() {
    return this.views[this.mode].tools;
  }

  nameKeys() {
    nameKeys(this.mode, this.#tools);
  }

  /** Tells what happened, for eyes and for screen readers. */
  say(text, tone = "") {
    const live = find("#live");
    live.textContent = "";
    live.dataset.tone = tone;
    live.textContent = text;
    live.classList.add("shown");
    clearTimeout(this.saying);
    this.saying = setTimeout(() => live.classList.remove("shown"), tone ? 6000 : 2500);
  }

  trouble(error) {
    if (error.name === "AbortError") return;
    if (error.status === undefined) throw error; // a mistake of ours: the console must show it
    this.say(error.status === 401 ? "You are signed out: reload the page to sign in. Your marks are kept." : error.message, "refused");
  }

  /** Asks the server for the next item and shows it. */
  async next() {
    const before = this.item;
    await this.#move(async () => {
      const { item, lease, reason } = await this.api.next(this.mode, before ?? undefined);
      if (item === null) this.#message("Nothing left to label", reason ?? "Every item is done.", [["Show the job", "job"]]);
      else await this.#show(item, lease);
    });
  }

  /** Shows a named item, and takes its lease unless it is already done. */
  async open(item) {
    await this.#move(() => this.#show(item, null));
  }

  async #move(work) {
    if (this.#moving) return;
    this.#moving = true;
    try {
      await this.#leave();
      await work();
    } catch (error) {
      if (error.status === undefined) throw error;
      this.#message("This did not work", error.message, [["Try again", "retry"], ["Next item", "complete"], ["Show the job", "job"]]);
    } finally {
      this.#moving = false;
    }
  }

  async #leave() {
    this.view?.close();
    this.view = null;
    await this.lease.release();
  }

  async #show(item, lease) {
    const [kind, id] = splitItem(item);
    this.item = item;
    const facts = await (kind === "pair" ? this.api.pair(id) : this.api.episode(id));
    let mine = await this.api.mine(item);
    let held = lease;
    const open = !mine.state.complete && mine.state.skipped === null;
    if (!held && (open || this.outbox.of(item).length)) { // what waits here may reopen it
      held = await this.#take(item);
      if (held === null) return;
      mine = await this.api.mine(item); // another window may have said something until then
    }
    this.mode = kind;
    find("#message").hidden = true;
    history.replaceState(null, "", `#${item}`);
    this.view = this.views[kind];
    const withdrawn = this.#withdraw(item, mine.events);
    try {
      await this.view.open(item, mine, facts);
    } finally {
      if (held) this.lease.hold(item, held); // nothing goes out before it is on the screen
    }
    this.#showHead(kind);
    this.prefetch.after(item);
    if (withdrawn) await this.#tellNews(item, 0);
  }

  /** Takes the lease, or says who has the item and returns null. */
  async #take(item) {
    try {
      return await this.api.lease(item, "take");
    } catch (error) {
      if (error.status !== 409) throw error;
      const holder = error.body.holder ? `${error.body.holder} has it now.` : error.message;
      this.#message(`${item.replace(":", " ")} is in work`, holder, [["Next item", "complete"], ["Show the job", "job"]]);
      return null;
    }
  }

  /** Takes the lease of the item on the screen once more; what another window stored meanwhile is shown before anything is sent. */
  async #takeAgain(item) {
    let news = 0;
    let withdrawn = false;
    await this.lease.take(item, async () => {
      const mine = await this.api.mine(item);
      withdrawn = this.#withdraw(item, mine.events);
      if (this.item === item && this.view?.record) news = this.view.record.restore(mine);
    });
    if (news || withdrawn) await this.#tellNews(item, news);
  }

  /** A completion stands only for what was on the screen; true when one was taken back. */
  #withdraw(item, stored) {
    const unseen = this.outbox.unseen(item, stored);
    if (unseen.length && this.#afterwards?.item === item) this.#afterwards = null;
    if (unseen.length) this.outbox.withdraw(unseen);
    return unseen.length > 0;
  }

  async #tellNews(item, news) {
    if (this.item !== item || find("#news").open) return;
    await tellNews({ name: item.replace(":", " "), news, closed: this.view.record.closed });
  }

  #showHead(kind) {
    const [, id] = splitItem(this.item);
    const episode = kind === "episode" ? this.view.episode : null;
    find("#title").textContent = episode ? `Episode ${id}` : "Which is better?";
    find("#subtitle").textContent = episode ? `${episode.task} · ${this.session.annotator}` : `Pair ${id} · ${this.session.annotator}`;
    document.title = `${find("#title").textContent} · Robolift review`;
    fill(find("#mode-button"), kind === "episode" ? "Pairs " : "Episodes ", el("kbd", {}, "m"));
    this.nameKeys();
    this.#showProgress();
  }

  async #showProgress() {
    const progress = await this.api.progress().catch(() => null);
    const part = progress?.[this.mode === "pair" ? "pairs" : "episodes"];
    if (!part) return;
    find("#job-bar").hidden = false;
    find("#job-progress").max = Math.max(1, part.total);
    find("#job-progress").value = part.done;
    find("#job-count").textContent = `${part.done} of ${part.total} done · ${part.mine} yours`;
  }

  run(command) {
    const action = this.#actions[command];
    if (action) Promise.resolve(action()).catch((error) => this.trouble(error));
    else if (this.view?.record) this.view.run(command);
  }

  #actions = {
    complete: () => this.#complete(),
    skip: () => this.#skip(),
    reopen: () => this.#reopen(),
    job: async () => this.#choose(await openJob(this.api, this.mode)),
    disagreements: async () => this.#choose(await openDisagreements(this.api)),
    mode: () => this.#switchMode(),
    retry: () => (this.item ? this.open(this.item) : this.next()),
    help: () => {
      fillSheet(find("#help .dialog-body"), this.mode, this.#tools);
      openDialog("#help");
    },
  };

  #choose(item) {
    return item ? this.open(item) : undefined;
  }

  async #switchMode() {
    const { modes } = this.session;
    if (modes.length < 2) return;
    this.mode = modes[(modes.indexOf(this.mode) + 1) % modes.length];
    this.item = null;
    await this.next();
  }

  async #complete() {
    const { view, item } = this;
    if (!view?.record || view.record.closed) return this.next();
    if (!view.complete()) return undefined;
    return this.#onceStored(item, async () => {
      await this.lease.release();
      if (this.item !== item) return; // an impatient Enter went on already
      if (this.mode === "pair") await this.next();
      else await Promise.all([view.reload(), this.#showProgress()]);
    });
  }

  async #skip() {
    const { view, item } = this;
    if (!view?.record || view.record.closed) return;
    const reason = await askReason();
    if (!reason || this.view !== view || this.item !== item) return;
    view.record.say("skip", { value: reason });
    this.say("Skipped.");
    await this.#onceStored(item, () => this.next());
  }

  /** Does `work` as soon as nothing of `item` waits any more, be it after the server was away; not if the page moved on. */
  async #onceStored(item, work) {
    this.#afterwards = { item, work };
    await this.outbox.settle(item);
    this.#doAfterwards();
  }

  #doAfterwards() {
    if (this.#afterwards === null || this.outbox.of(this.#afterwards.item).length) return;
    const { item, work } = this.#afterwards;
    this.#afterwards = null;
    if (this.item === item && this.view) work().catch((error) => this.trouble(error));
  }

  async #reopen() {
    const { view, item } = this;
    if (!view?.record?.closed) return;
    await this.#takeAgain(item).catch((error) => {
      const { holder } = error.body ?? {};
      throw holder ? Object.assign(error, { message: `It can't be reopened now: ${holder} has it.` }) : error;
    });
    if (this.view !== view || !view.record?.closed) return;
    view.record.say("reopen");
    this.say("Reopened.");
    await this.outbox.settle(item);
    await view.reload();
  }

  #followHash() {
    const named = location.hash.slice(1);
    if (named !== this.item && /^(episode|pair):/.test(named)) this.open(named);
  }

  #message(title, text, buttons) {
    this.view?.close();
    this.view = null;
    find("#title").textContent = "Robolift review";
    find("#subtitle").textContent = this.session?.annotator ?? "";
    const message = fill(find("#message"), el("h2", {}, title), el("p", {}, text),
      el("div", { class: "pairs-of" }, buttons.map(([words, command]) => el("button", { "data-command": command, class: "quiet" }, words))));
    message.hidden = false;
    this.say(`${title}. ${text}`);
  }

  #showSaved({ unsaved, offline, signedOut, refused, kept }) {
    const state = refused.length ? "refused" : offline ? "offline" : unsaved ? "saving" : "saved";
    const away = signedOut ? "signed out, open your link" : "offline";
    const words = { saved: "saved", saving: "saving", offline: `${away} — ${unsaved} unsaved`, refused: `${unsaved} not stored` };
    find("#saved").dataset.state = state;
    find("#saved-text").textContent = kept ? words[state] : `${words[state]}, not kept through a reload`;
    if (!kept) this.say("This browser's storage is full: your marks are not kept through a reload. Stay until it says saved.", "refused");
  }

  /** Marks of an earlier visit to other items: sent under a fresh lease where it can be had. */
  async #sendLeftovers() {
    for (const item of this.outbox.items()) if (item !== this.item) await this.#sendUnderFreshLease(item).catch((error) => this.#lost(item, error));
  }

  async #sendUnderFreshLease(item) {
    const { epoch } = await this.api.lease(item, "take");
    const { events } = await this.api.mine(item);
    if (this.#withdraw(item, events)) this.say(`${item.replace(":", " ")} was not completed: you marked it in another window since.`, "refused");
    this.outbox.learn(item, events);
    this.outbox.allow(item, epoch);
    if (!(await this.outbox.settle(item))) return;
    this.outbox.forbid(item);
    await this.api.lease(item, "release", epoch);
  }

  /** A lease that merely ran out, or was of a server before its restart, is taken again without troubling anyone. */
  async #stale(item, error) {
    const { holder } = error.body;
    // One's own other page is told of, but not the first time: it may be this page before a reload, still at work.
    const own = holder === this.session.annotator && (this.lease.session !== this.api.sessionId || !this.#retaken.has(item));
    if (error.status !== 409 || (holder && !own)) return this.#lost(item, error);
    if (this.#taking.has(item)) return undefined; // told of twice: by a refused mark and by a refused renewal
    this.#retaken.add(item);
    this.#taking.add(item);
    try {
      if (this.item === item) await this.#takeAgain(item);
      else await this.#sendUnderFreshLease(item);
    } catch (next) {
      if (next.passing) setTimeout(() => this.#stale(item, error), RETRY_MS);
      else await this.#lost(item, next);
    } finally {
      this.#taking.delete(item);
    }
    return undefined;
  }

  /** The server does not take events of an item any more: says so, keeps them, and offers what can be done. */
  async #lost(item, error) {
    if (error.passing || find("#lost").open) return; // the first loss is answered first; marks stay where they are
    if (this.lease.item === item) this.lease.drop();
    const choice = await askAboutLoss({ name: item.replace(":", " "), error, waiting: this.outbox.of(item).length, annotator: this.session.annotator });
    await this.#afterLoss(choice, item, error);
  }

  async #afterLoss(choice, item, error) {
    if (!choice) await this.#lost(item, error); // Escape is no answer
    else if (choice === "again") {
      if (this.item === item && this.view) {
        this.#takeAgain(item).catch((next) => (next.status === 409 ? this.#lost(item, next) : this.trouble(next)));
      } else await this.open(item);
    } else if (choice === "download") {
      download(`${item.replace(":", "-")}-unsaved.json`, this.outbox.of(item));
      await this.#lost(item, error);
    } else if (choice === "discard") {
      this.outbox.discard(item);
      await this.next();
    } else if (this.item === item) await this.next();
  }
}

/** Marks of one job must never be sent to another that is served at the same address. */
async function scopeOf(identity) {
  const bytes = new TextEncoder().encode(JSON.stringify(identity));
  const digest = await crypto.subtle?.digest("SHA-256", bytes);
  if (!digest) return encodeURIComponent(JSON.stringify(identity)); // plain HTTP away from localhost has no subtle
  return Array.from(new Uint8Array(digest).slice(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const LINK = "Open the whole link that you were given for this job, of the form …/?token=…; if it does not work, ask who runs the job for a new one.";

function cannotStart(title, ...texts) {
  const message = fill(find("#message"), el("h2", {}, title), texts.map((text) => el("p", {}, text)));
  message.hidden = false;
}

async function main() {
  if (new URLSearchParams(location.search).has("token")) { // a right one is not in the address any more
    cannotStart("This link does not sign you in", "Its token is not, or no longer, one of this job's.", LINK);
    return;
  }
  try {
    await new App().start();
  } catch (error) {
    if (error.status === 401) cannotStart("Please sign in", LINK);
    else cannotStart("The page can't start", error.message);
    if (error.status === undefined) throw error;
  }
}

main();
