// The way to DataNodes: through a worker whose policy names them (bytes.js).

let nodes = []; // addresses of all DataNodes that the NameNode knows
let current = null;
let counter = 0;

// A worker's script must be vouched for. This policy knows one URL, whatever it is asked for.
const trusted = globalThis.trustedTypes ? globalThis.trustedTypes.createPolicy("twinfs-bytes", { createScriptURL: () => "/bytes.js" }).createScriptURL("") : "/bytes.js";

/** Tell which DataNodes there are. */
export function setNodes(addresses) { nodes = addresses; }

class Link {
  constructor() {
    // What the NameNode knows by the time it is asked for the script is no less than this.
    this.reach = new Set(nodes);
    this.jobs = new Map();
    this.worker = new Worker(trusted);
    this.worker.onmessage = ({ data }) => { const job = this.jobs.get(data.id); if (job) job(data); };
    this.worker.onerror = () => this.fail();
  }

  start(message, hear) {
    counter += 1;
    const id = counter;
    this.jobs.set(id, (data) => {
      if (data.status !== undefined) { this.jobs.delete(id); this.tidy(); }
      hear(data);
    });
    this.worker.postMessage({ id, ...message });
    return () => this.worker.postMessage({ id, stop: true });
  }

  /** The script did not come (the NameNode is away): all that was asked has failed, and the next one tries anew. */
  fail() {
    if (current === this) current = null;
    for (const job of [...this.jobs.values()]) job({ status: 0, text: "the NameNode does not answer" });
  }

  tidy() { if (current !== this && !this.jobs.size) this.worker.terminate(); }
}

function linkTo(url) {
  if (current === null || !current.reach.has(new URL(url).host)) {
    const old = current;
    current = new Link();
    if (old) old.tidy();
  }
  return current;
}

/** GET *url* of a DataNode: {status, text, body}; status 0 when it could not be reached. */
export function get(url, headers, signal) {
  return new Promise((resolve, reject) => {
    if (signal && signal.aborted) { reject(new DOMException("given up", "AbortError")); return; }
    const stop = linkTo(url).start({ url, headers }, (data) => {
      if (signal) signal.removeEventListener("abort", give);
      resolve(data);
    });
    function give() { stop(); reject(new DOMException("given up", "AbortError")); }
    if (signal) signal.addEventListener("abort", give, { once: true });
  });
}

/** PUT *file* to *url* of a DataNode; {promise of {status, text}, stop}. */
export function put(url, file, progress) {
  let stop = () => {};
  const promise = new Promise((resolve) => {
    stop = linkTo(url).start({ url, file }, (data) => { if (data.sent !== undefined) progress(data.sent); else resolve(data); });
  });
  return { promise, stop };
}
