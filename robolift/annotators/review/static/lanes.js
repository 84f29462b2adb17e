// Which lanes an episode shows, and how far one's own pass agrees with the model and with others.

import { differences, expand, slope } from "./labels.js";

const WITHHELD = "shown after your own pass";

/** Lanes of the timeline from one's own state, the server's lanes (null while they come; `exist` says which there are) and others' passes. */
export function lanesOf({ state, lanes, exist, others, job, fps }) {
  const asks = (name) => job.ask.includes(name);
  const found = [{ id: "ruler", name: "Frame", kind: "ruler" }];
  if (asks("segments")) found.push({ id: "mine", name: "You", kind: "tri", values: state.tri });
  if (asks("frames")) found.push({ id: "mine-frames", name: "Your reward", kind: "frames", values: state.frames });
  if (asks("stages")) {
    found.push({ id: "stages", name: "Your stages", kind: "stages", values: state.boundaries, names: job.stage_names });
  }
  if (asks("outcome")) found.push({ id: "outcome", name: "Your outcome", kind: "outcome", value: state.outcome });
  const compared = state.complete ? [...modelDifference(state, lanes, fps), ...othersLanes(state, others)] : [];
  return [...found, ...compared, ...modelLanes(lanes, exist)];
}

/** The model is read by where its progress rises or falls. */
function moves(lanes, fps) {
  return slope(lanes.vlm_progress, Math.max(1, Math.round(fps / 4)));
}

function modelDifference(state, lanes, fps) {
  if (!lanes?.vlm_progress || state.tri.every((value) => value === null)) return [];
  return [{ id: "differs-vlm", name: "You ≠ VLM", kind: "differs", values: differences(state.tri, moves(lanes, fps)).differs }];
}

function othersLanes(state, others) {
  return (others ?? []).flatMap(({ name, state: theirs }) => {
    const tri = expand(theirs.tri, state.length);
    const found = [];
    if (tri.some((value) => value !== null)) {
      found.push({ id: `other-${name}`, name, kind: "tri", values: tri });
      found.push({ id: `differs-${name}`, name: `You ≠ ${name}`, kind: "differs", values: differences(state.tri, tri).differs });
    }
    const frames = expand(theirs.frames, state.length);
    if (frames.some((value) => value !== null)) {
      found.push({ id: `frames-${name}`, name: `${name}: reward`, kind: "frames", values: frames });
    }
    if (theirs.boundaries?.length) {
      found.push({ id: `stages-${name}`, name: `${name}: stages`, kind: "stages", values: theirs.boundaries });
    }
    if (theirs.outcome) found.push({ id: "outcome", name: `${name}: outcome`, kind: "outcome", value: theirs.outcome });
    return found;
  });
}

function modelLanes(lanes, exist) {
  if (!lanes) return [];
  const found = [];
  const model = (id, name, kind, values, more = {}) => {
    if (values) found.push({ id, name, kind, values, ...more });
    else if (lanes.blind && (exist?.[id] ?? true)) found.push({ id, name, kind, text: WITHHELD });
  };
  model("vlm_progress", "VLM progress", "line", lanes.vlm_progress, { range: [0, 1] });
  model("value", "Value", "line", lanes.value);
  model("advantage_label", "Advantage", "tri", lanes.advantage_label);
  if (lanes.intervention?.some(Boolean)) {
    found.push({ id: "intervention", name: "Intervention", kind: "bits", values: lanes.intervention, symbol: "person" });
  }
  return found;
}

/** Rows of the comparison: [{ name, share, text }]. */
export function comparison({ state, lanes, others, fps }) {
  const rows = [];
  if (lanes.vlm_progress && state.tri.some((value) => value !== null)) {
    rows.push({ name: "VLM", share: differences(state.tri, moves(lanes, fps)).share });
  }
  for (const { name, state: theirs } of others ?? []) {
    const { share } = differences(state.tri, expand(theirs.tri, state.length));
    if (share !== null) rows.push({ name, share });
    const frames = differences(state.frames, expand(theirs.frames, state.length)).share;
    if (frames !== null) rows.push({ name: `${name}, reward`, share: frames });
    if (theirs.outcome && state.outcome) {
      const same = theirs.outcome.value === state.outcome.value;
      rows.push({ name: `${name}, outcome`, text: same ? "same" : `${theirs.outcome.value}, you ${state.outcome.value}` });
    }
  }
  return rows;
}
