// Talking to the NameNode, and to DataNodes for the bytes of files.

import { get, put, setNodes } from "./link.js";

export class ApiError extends Error {
  constructor(code, message) { super(message); this.code = code; }
}

let user = "";
try { user = localStorage.getItem("twinfs-user") || ""; } catch { /* private windows may refuse */ }

export const currentUser = () => user;
export function setUser(value) {
  user = value.trim();
  token = null;
  try { localStorage.setItem("twinfs-user", user); } catch { /* see above */ }
}

async function failure(response) {
  try {
    const body = await response.json();
    return new ApiError(body.code || "error", body.message || response.statusText);
  } catch {
    return new ApiError("error", `the server answered ${response.status} ${response.statusText}`);
  }
}

let counter = 0;
const client = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** One operation of the NameNode. Its request id makes trying again harmless. */
export async function call(operation, request = {}, { signal } = {}) {
  counter += 1;
  const headers = { "Content-Type": "application/json", "X-TwinFS-Request": `${client}-${counter}` };
  if (user) headers["X-TwinFS-User"] = user;
  const body = JSON.stringify(request);
  for (let attempt = 0; ; attempt += 1) {
    let response;
    try {
      response = await fetch(`/v1/${operation}`, { method: "POST", headers, body, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (attempt >= 3) throw new ApiError("unavailable", "the NameNode does not answer");
      await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** attempt));
      continue;
    }
    if (response.ok) return response.json();
    if ((response.status === 503 || response.status === 504) && attempt < 3) {
      await new Promise((resolve) => setTimeout(resolve, 300 * 2 ** attempt));
      continue;
    }
    throw await failure(response);
  }
}

let token = null;
async function pageToken() {
  if (token === null || token.expires_ms < Date.now() + 60000) token = await call("page_token");
  return token.token;
}

let gateways = [], heard;
const nodesKnown = new Promise((resolve) => { heard = resolve; });
export function setGateways(nodes) {
  heard();
  setNodes(nodes.map((node) => node.address.http).filter(Boolean));
  gateways = nodes.filter((node) => node.state === "live" && node.address.http).map((node) => node.address.http);
}

/** A page that was opened at a file's or a CID's own address asks before it has heard of any node. */
const known = () => Promise.race([nodesKnown, new Promise((resolve) => { setTimeout(resolve, 10000); })]);

/** The URL of a file's bytes at some live DataNode; at one of *preferred* (HTTP addresses), if it can be. */
export async function fileUrl(path, { preferred = [], more = {}, attempt = 0 } = {}) {
  await known();
  const live = [...gateways];
  const order = [...preferred.filter((address) => live.includes(address)), ...live.sort(() => Math.random() - 0.5)];
  if (!order.length) throw new ApiError("unavailable", "no DataNode is alive that could be asked");
  const address = order[attempt % order.length];
  const query = new URLSearchParams({ path, token: await pageToken(), ...more });
  return `http://${address}/v1/web/file?${query}`;
}

/** The URL of something at some live DataNode's gateway. */
export async function gatewayUrl(path) {
  await known();
  if (!gateways.length) throw new ApiError("unavailable", "no DataNode is alive that could be asked");
  return `http://${gateways[Math.floor(Math.random() * gateways.length)]}${path}`;
}

/** What a DataNode said is wrong. */
function refusal(status, text) {
  try {
    const found = JSON.parse(text);
    if (found.message) return new ApiError(found.code || "error", found.message);
  } catch { /* no JSON */ }
  return new ApiError("error", `the DataNode answered ${status}`);
}

/** Bytes [start, end) of a file. */
export async function readRange(path, start, end, options = {}) {
  let last = "";
  for (let attempt = 0; attempt < 3; attempt += 1) {
    const url = await fileUrl(path, { ...options, attempt });
    const answer = await get(url, { Range: `bytes=${start}-${end - 1}` }, options.signal);
    if (answer.status === 416) return new ArrayBuffer(0);
    if (answer.status >= 200 && answer.status < 300) return answer.body;
    if (answer.status) throw refusal(answer.status, new TextDecoder().decode(answer.body));
    last = answer.text;
  }
  throw new ApiError("unavailable", `no DataNode could be reached (${last})`);
}

/** The bytes of a block, by its CID, from some live DataNode's gateway. */
export async function readBlock(cid, signal) {
  const answer = await get(await gatewayUrl(`/ipfs/${cid}?format=raw`), {}, signal);
  if (answer.status === 200) return new Uint8Array(answer.body);
  if (answer.status === 404) throw new ApiError("not-found", "This block is not in the cluster.");
  throw new ApiError("unavailable", answer.status ? `The gateway answered ${answer.status}.` : `The gateway could not be reached (${answer.text}).`);
}

/** Send a File to *path*; it streams, and *progress* hears how many bytes have left. Returns {promise, cancel}. */
export function upload(path, file, progress, { overwrite = false } = {}) {
  let cancelled = false, stop = () => {};
  const promise = (async () => {
    const url = await fileUrl(path, { more: { overwrite: overwrite ? "true" : "false", size: String(file.size), mtime: String(file.lastModified || 0) } });
    if (cancelled) throw new ApiError("cancelled", "cancelled");
    const sending = put(url, file, progress);
    stop = sending.stop;
    const answer = await sending.promise;
    if (answer.status >= 200 && answer.status < 300) return;
    if (cancelled) throw new ApiError("cancelled", "cancelled");
    if (!answer.status) throw new ApiError("unavailable", "the connection to the DataNode broke");
    throw refusal(answer.status, answer.text);
  })();
  return { promise, cancel: () => { cancelled = true; stop(); } };
}

/** A stream of server-sent events that comes back by itself. *on*: {event name: handler of its data}; *state* hears of the connection. */
export function follow(url, on, state = () => {}) {
  let source = null, timer = null, closed = false, wait = 500;
  const open = () => {
    source = new EventSource(typeof url === "function" ? url() : url);
    source.onopen = () => { wait = 500; state(true); };
    source.onerror = () => {
      state(false);
      source.close();
      if (!closed) { timer = setTimeout(open, wait); wait = Math.min(wait * 2, 8000); }
    };
    for (const [event, handler] of Object.entries(on)) source.addEventListener(event, (message) => handler(JSON.parse(message.data), message));
  };
  open();
  return { close: () => { closed = true; clearTimeout(timer); source.close(); } };
}
