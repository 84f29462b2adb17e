// The whole job in one dialog: how far it is, who did what, which items there are, where people disagree.

import { el, find, openDialog, percent, plural } from "./dom.js";

const SHOWN = 300;
const STATES = { all: "All", open: "Open", mine: "Mine", leased: "In work", done: "Done", skipped: "Skipped" };

const AGREEMENT = { tri: "segments", preference: "pairs" };
const NUMBERS = new Set(["Frames", "Annotators", "Disagreement"]);

const heading = (text) => el("h3", {}, text);
const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function tiles(progress) {
  const rows = Object.entries({ Episodes: progress.episodes, Pairs: progress.pairs }).filter(([, part]) => part?.total);
  const agreement = Object.entries(progress.agreement ?? {}).filter(([, alpha]) => alpha !== null);
  return el("dl", { class: "tiles" },
    rows.flatMap(([name, part]) => [
      el("div", {}, el("dt", {}, `${name} done`), el("dd", {}, `${part.done} / ${part.total}`),
        el("dd", { class: "muted" }, `${part.mine} by you, ${part.leased} in work, ${part.skipped} skipped`)),
    ]),
    agreement.map(([name, alpha]) => el("div", {}, el("dt", {}, `Agreement, ${AGREEMENT[name] ?? name}`), el("dd", {}, number(alpha)),
      el("dd", { class: "muted" }, "Krippendorff’s alpha; 1 is perfect"))));
}

function people(annotators) {
  const head = ["Annotator", "Done", "Known answers right", "Median time"];
  return el("table", {},
    el("thead", {}, el("tr", {}, head.map((text, column) => el("th", { scope: "col", class: column ? "number" : null }, text)))),
    el("tbody", {}, annotators.map(({ name, done, gold_accuracy: gold, median_s: time }) =>
      el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, String(done)),
        el("td", { class: "number" }, percent(gold)), el("td", { class: "number" }, time === null ? "–" : `${number(time, 1)} s`)))));
}

/** The list of items with a filter; choosing one closes the dialog with its name. */
function itemList(items) {
  const rows = el("tbody", {});
  const count = el("p", { class: "muted" });
  const show = (state) => {
    const found = items.filter((item) => state === "all" || item.state === state);
    rows.replaceChildren(...found.slice(0, SHOWN).map(itemRow));
    const more = found.length > SHOWN ? `, the first ${SHOWN} are shown` : "";
    count.textContent = `${plural(found.length, "item")}${more}`;
  };
  const filter = el("select", { id: "state-filter", on: { change: (event) => show(event.target.value) } },
    Object.entries(STATES).map(([value, text]) => el("option", { value }, text)));
  show("all");
  return el("section", {}, el("div", { class: "list-head" }, heading("Items"), el("label", {}, "Show ", filter), count),
    el("table", { class: "items" },
      el("thead", {}, el("tr", {}, ["Item", "Task", "Frames", "State", "Annotators", "Disagreement"].map((text) => el("th", { scope: "col", class: NUMBERS.has(text) ? "number" : null }, text)))),
      rows));
}

function itemRow({ item, task, length, state, annotators, needed, disagreement }) {
  return el("tr", { "data-state": state },
    el("th", { scope: "row" }, el("button", { class: "link", value: item, on: { click: choose } }, item.replace(":", " "))),
    el("td", {}, task ?? ""), el("td", { class: "number" }, String(length ?? "")),
    el("td", {}, el("span", { class: `tag ${state}` }, STATES[state] ?? state)),
    el("td", { class: "number" }, `${annotators} / ${needed}`),
    el("td", { class: "number" }, disagreement === null || disagreement === undefined ? "–" : percent(disagreement)));
}

const choose = (event) => find("dialog#job").close(event.currentTarget.value);

/** Opens the job's page; resolves with the item that was chosen, or "". */
export async function openJob(api, mode) {
  const [progress, items] = await Promise.all([api.progress(), api.items(mode)]);
  find("#job-title").textContent = "The job";
  const closed = openDialog("#job", tiles(progress), heading("Annotators"), people(progress.annotators), itemList(items));
  return closed.then((value) => (value === "close" ? "" : value));
}

/** Opens the list of items on which annotators disagree, worst first; resolves with the item that was chosen. */
export async function openDisagreements(api) {
  const found = await api.disagreements();
  find("#job-title").textContent = "Where annotators disagree";
  const body = found.length
    ? el("table", { class: "items" },
        el("thead", {}, el("tr", {}, ["Item", "Disagreement", "Annotators"].map((text) => el("th", { scope: "col" }, text)))),
        el("tbody", {}, found.slice(0, SHOWN).map(({ item, disagreement, annotators }) =>
          el("tr", {},
            el("th", { scope: "row" }, el("button", { class: "link", value: item, on: { click: choose } }, item.replace(":", " "))),
            el("td", {}, el("meter", { min: "0", max: "1", value: disagreement, "aria-label": "disagreement" }), ` ${percent(disagreement)}`),
            el("td", {}, annotators.map((one) => one.name ?? one).join(", "))))))
    : el("p", {}, "Nobody disagrees yet: it takes an item that two people completed.");
  return openDialog("#job", body).then((value) => (value === "close" ? "" : value));
}

/** Asks why an item is skipped; resolves with the reason, or "" when it is not. */
export async function askReason() {
  const reason = el("input", { id: "reason", name: "reason", required: true, maxlength: "200", autocomplete: "off", list: "reasons" });
  const usual = ["camera blocked", "video broken", "task not as named", "can't be told"];
  const closed = openDialog("#skip", el("form", { method: "dialog" },
    el("label", { for: "reason" }, "Why? The reason is kept with your marks."), reason,
    el("datalist", { id: "reasons" }, usual.map((value) => el("option", { value }))),
    el("div", { class: "pairs-of" }, el("button", { class: "primary ready", value: "skip" }, "Skip ", el("kbd", {}, "Enter")))));
  reason.focus();
  return (await closed) === "skip" ? reason.value.trim() : "";
}
