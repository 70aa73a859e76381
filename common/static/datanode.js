// A DataNode's own page.

import { badge, bar, h, keepFocus, name, replace } from "./dom.js";
import { count, duration, plural, size } from "./format.js";

const main = document.getElementById("main"), connection = document.getElementById("connection");
const SHOWN = 200; // of peers, of pins
const peering = h("div", {});
let before = null;

const short = (id) => h("span", { class: "mono", title: id }, `${id.slice(0, 12)}…${id.slice(-6)}`);
const heads = (...texts) => h("thead", {}, h("tr", {}, texts.map((text) => h("th", { scope: "col" }, text))));
const rest = (found) => (found.length > SHOWN ? h("p", { class: "dim small" }, `${count(found.length - SHOWN)} more are not shown.`) : "");

/** Whom this peer knows, and what it keeps. It tells that on its own machine alone: who knows a CID may have its bytes. */
async function lookAtPeers() {
  const answers = await Promise.all(["/v1/peer/status", "/v1/peer/pins"].map((url) => fetch(url)));
  if (answers.some((one) => !one.ok)) { replace(peering, h("section", { class: "card" }, h("h2", {}, "Peers and pins"), h("p", { class: "dim" }, "Shown to browsers on the peer's own machine."))); return; }
  const [status, { pins }] = await Promise.all(answers.map((one) => one.json()));
  const alive = status.peers.filter((one) => one.alive).length;
  keepFocus(peering, () => replace(peering,
    h("section", { class: "card" }, h("h2", {}, "Peers"),
      h("p", { class: "small" }, "This one is ", short(status.id), `, and offers ${plural(status.provided, "root")}. It knows ${plural(status.peers.length, "peer")}, ${count(alive)} of its pin group alive; for others it keeps ${plural(status.records, "announcement")} and ${plural(status.names, "name")}.`),
      status.peers.length ? h("div", { class: "scroll" }, h("table", {}, heads("Peer", "Addresses", "Pin group"),
        h("tbody", {}, status.peers.slice(0, SHOWN).map((one) => h("tr", {}, h("td", {}, short(one.id)), h("td", { class: "mono" }, name(one.addresses.join(", "))), h("td", {}, one.alive ? badge("alive", "good") : badge("not heard of"))))))) : h("p", { class: "dim" }, "Nobody yet. `dfs datanode --bootstrap HOST:PORT` says whom to ask first."), rest(status.peers)),
    h("section", { class: "card" }, h("h2", {}, "Pins"),
      pins.length ? h("div", { class: "scroll" }, h("table", {}, heads("CID", "Name", "Kind", "Copies", "Here"),
        h("tbody", {}, pins.slice(0, SHOWN).map((one) => h("tr", {}, h("td", { class: "mono cid" }, h("a", { href: `/ipfs/${one.cid}`, "data-key": one.cid, rel: "noreferrer" }, h("bdi", {}, one.cid))), h("td", {}, name(one.name || "")), h("td", {}, one.kind),
          h("td", { class: "nowrap" }, one.replicas ? `${count(one.holders.length)} of ${count(one.replicas)}` : "this peer's own"), h("td", {}, !one.replicas || one.held_here ? badge("yes", "good") : badge("no"))))))) : h("p", { class: "dim" }, "Nothing is pinned."), rest(pins))));
}

function draw(found) {
  const passed = before ? (found.time_ms - before.time_ms) / 1000 : 0;
  const per = (key) => (passed > 0 ? Math.max(0, found.traffic[key] - before.traffic[key]) / passed : 0);
  const tile = (label, value, ...more) => h("section", { class: "card" }, h("div", { class: "label" }, label), h("div", { class: "value" }, value), ...more);
  const kind = found.namenodes.length ? "TwinFS DataNode" : "TwinFS peer";
  document.title = kind;
  document.querySelector(".brand span").textContent = kind;
  const failed = found.volumes.filter((volume) => volume.failure).length;
  replace(main,
    h("section", { class: `card health ${failed ? "bad" : ""}` }, h("div", { class: "grow" }, h("h1", {}, failed ? `${plural(failed, "volume")} out of service` : "All volumes are in service"), h("div", { class: "dim small" }, `TwinFS ${found.version}, up ${duration(found.up_s)}, rack `, name(found.rack), ", ", h("span", { class: "mono" }, found.uuid)))),
    h("div", { class: "grid" },
      tile("Replicas", count(found.blocks)),
      tile("Written", `${size(per("received_bytes"))}/s`, h("div", { class: "dim small" }, `${size(found.traffic.received_bytes)} since the start`)),
      tile("Read", `${size(per("sent_bytes"))}/s`, h("div", { class: "dim small" }, `${size(found.traffic.sent_bytes)} since the start`)),
      tile("Block streams", count(found.busy), h("div", { class: "dim small" }, `${plural(found.connections, "open connection")}, ${plural(found.traffic.errors, "error")}`))),
    h("section", { class: "card" }, h("h2", {}, "Volumes"), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Directory", "State", "Used", "Free", ""].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, found.volumes.map((volume) => h("tr", {}, h("td", { class: "mono" }, name(volume.path)), h("td", {}, volume.failure ? badge(volume.failure, "bad") : badge("in service", "good")), h("td", { class: "nowrap" }, size(volume.used_bytes)), h("td", { class: "nowrap" }, size(volume.remaining_bytes)), h("td", {}, bar(volume.capacity_bytes ? volume.used_bytes / volume.capacity_bytes : 0)))))))),
    h("section", { class: "card" }, h("h2", {}, "NameNodes"), found.namenodes.length ? h("table", {}, h("tbody", {}, found.namenodes.map((one) => h("tr", {}, h("td", {}, h("a", { href: one.url, "data-key": one.url, rel: "noreferrer" }, one.url)), h("td", {}, one.age_s === null ? badge("no answer yet", "bad") : badge(`answered ${duration(one.age_s)} ago`, one.age_s > 20 ? "warn" : "good")))))) : h("p", { class: "dim" }, "None: this is a plain peer.")),
    peering);
  before = found;
}

async function look() {
  try {
    const response = await fetch("/v1/web/node");
    if (!response.ok) throw new Error(response.statusText);
    const found = await response.json();
    keepFocus(main, () => draw(found));
    if (found.peer) await lookAtPeers();
    connection.className = "badge good"; connection.textContent = "live";
  } catch {
    connection.className = "badge bad"; connection.textContent = "not connected";
  }
  setTimeout(look, document.hidden ? 10000 : 2000);
}
look();
