// Work that is done at most once per animation frame, however many events ask for it.

const waiting = new Set();
let requested = 0;

function runAll() {
  requested = 0;
  const work = [...waiting];
  waiting.clear();
  for (const run of work) run();
}

/** Run `work` in the next frame. The same function is run once. */
export function inNextFrame(work) {
  waiting.add(work);
  requested ||= requestAnimationFrame(runAll);
}
