// What the annotator said, as a pure function of events; the server folds alike.

export const UNKNOWN = "unknown";
const MARKS = new Set(["paint", "frame_reward", "outcome", "boundary", "prefer"]);

/**
 * Folds events, in order, into labels. An undone event counts as absent; redo revives it.
 * tri and frames hold one value a frame, null where nothing was said.
 */
export function fold(events, length) {
  const seen = new Map();
  for (const event of events) if (!seen.has(event.ulid)) seen.set(event.ulid, event);
  const ordered = [...seen.values()];
  const undone = new Set();
  for (const { op, value } of ordered) {
    if (op === "undo") undone.add(value);
    if (op === "redo") undone.delete(value);
  }
  const state = {
    length,
    tri: new Array(length).fill(null),
    frames: new Array(length).fill(null),
    outcome: null,
    boundaries: new Set(),
    prefer: null,
    complete: false,
    skipped: null,
  };
  for (const event of ordered) if (!undone.has(event.ulid)) apply(state, event);
  return { ...state, boundaries: [...state.boundaries].sort((a, b) => a - b), ...history(ordered) };
}

function apply(state, { op, from, to, value }) {
  if (op === "paint") state.tri.fill(value, from, to);
  else if (op === "frame_reward") state.frames.fill(value, from, to);
  else if (op === "outcome") state.outcome = value === null ? null : { value, frame: from };
  else if (op === "boundary") value ? state.boundaries.add(from) : state.boundaries.delete(from);
  else if (op === "prefer") state.prefer = value;
  else if (op === "skip") [state.complete, state.skipped] = [false, value];
  else if (op === "complete") [state.complete, state.skipped] = [true, null];
  else if (op === "reopen") [state.complete, state.skipped] = [false, null];
}

/** Which marks `undo` and `redo` would take, last first; a new mark ends what can be redone. */
function history(events) {
  const byUlid = new Map(events.map((event) => [event.ulid, event]));
  let undoable = [];
  let redoable = [];
  for (const event of events) {
    if (MARKS.has(event.op)) {
      undoable.push(event);
      redoable = [];
    } else if (event.op === "undo" && byUlid.has(event.value)) {
      undoable = undoable.filter((mark) => mark.ulid !== event.value);
      redoable.push(byUlid.get(event.value));
    } else if (event.op === "redo" && byUlid.has(event.value)) {
      redoable = redoable.filter((mark) => mark.ulid !== event.value);
      undoable.push(byUlid.get(event.value));
    }
  }
  return { undoable, redoable };
}

/** Runs of equal values: [[from, to, value], ...] over the whole length. */
export function runs(values) {
  const found = [];
  for (let from = 0, to = 0; from < values.length; from = to) {
    while (to < values.length && values[to] === values[from]) to += 1;
    found.push([from, to, values[from]]);
  }
  return found;
}

/**
 * The frames [from, to) that the next label would take.
 * Both marks: between them. One mark: from it to here. None: the run of equal frames that holds this frame, up to here
 * where nothing was said yet (so labels follow one another), all of it where something was (so a segment is relabelled).
 */
export function pendingRange(values, marks, here) {
  const [runFrom, runTo, value] = runs(values).find(([from, to]) => from <= here && here < to);
  if (marks.start === null && marks.end === null) return value === null ? [runFrom, here + 1] : [runFrom, runTo];
  const end = marks.end ?? here;
  const start = marks.start ?? runs(values).find(([from, to]) => from <= end && end < to)[0];
  return [Math.min(start, end), Math.max(start, end) + 1];
}

/** What is still to be done before the item is complete: [{ text, frame }]; frame is where to look. */
export function missing(state, job) {
  const found = [];
  for (const [ask, values, verb] of [["segments", state.tri, "labelled or unknown"], ["frames", state.frames, "0 or 1"]]) {
    const left = job.ask.includes(ask) ? values.filter((value) => value === null).length : 0;
    if (left) {
      const frame = values.indexOf(null);
      const frames = left === 1 ? "1 frame is" : `${left} frames are`;
      found.push({ ask, text: `${frames} not yet ${verb}; the first is frame ${frame}`, frame });
    }
  }
  if (job.ask.includes("outcome") && !state.outcome) {
    found.push({ ask: "outcome", text: "the outcome is missing: s for success, f for failure, at the frame where it shows", frame: null });
  }
  const needed = job.num_task_stages - 1;
  const { length: there } = state.boundaries;
  const stopped = state.outcome?.value === "failure"; // a failed attempt may end in any stage
  if (job.ask.includes("stages") && there !== needed && !(stopped && there < needed)) {
    const text = `${job.num_task_stages} task stages need ${needed} boundaries, there are ${there}`;
    found.push({ ask: "stages", text, frame: null });
  }
  return found;
}

/** Frames where something changes: edges of segments, boundaries, the outcome. */
export function edges(state) {
  const found = new Set([0, state.length - 1, ...state.boundaries]);
  for (const values of [state.tri, state.frames]) for (const [from] of runs(values)) found.add(from);
  if (state.outcome) found.add(state.outcome.frame);
  return [...found].sort((a, b) => a - b);
}

/** The direction in which a progress lane moves: -1, 0 or 1 a frame, over a window of `reach` frames each way. */
export function slope(progress, reach, least = 0.01) {
  return progress.map((_, k) => {
    const before = progress[Math.max(0, k - reach)];
    const after = progress[Math.min(progress.length - 1, k + reach)];
    if (before === null || after === null) return null;
    return Math.abs(after - before) < least ? 0 : Math.sign(after - before);
  });
}

/** Where two labellings disagree: true a frame; only frames on which both spoke count. */
export function differences(mine, theirs) {
  const spoke = (value) => value !== null && value !== undefined && value !== UNKNOWN;
  const differs = mine.map((value, k) => spoke(value) && spoke(theirs[k]) && value !== theirs[k]);
  const both = mine.filter((value, k) => spoke(value) && spoke(theirs[k])).length;
  return { differs, share: both ? 1 - differs.filter(Boolean).length / both : null };
}

/** [[from, to, value], ...] as one value a frame. */
export function expand(segments, length) {
  const values = new Array(length).fill(null);
  for (const [from, to, value] of segments ?? []) values.fill(value, from, to);
  return values;
}
