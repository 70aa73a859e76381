// The frame: which view is shown, the live connection, whom the pages act as.

import { currentUser, follow, setGateways, setUser } from "./api.js";
import { ask, h, icon, replace, toast } from "./dom.js";
import { content } from "./content.js";
import { events } from "./events.js";
import { files } from "./files.js";
import { nodes } from "./nodes.js";
import { overview } from "./overview.js";

const main = document.getElementById("main");
const VIEWS = { overview, nodes, files, content, events };

/** What is known of the cluster, and who wants to hear of it. */
class State {
  constructor() { this.latest = null; this.listeners = new Set(); }
  set(value) { this.latest = value; setGateways(value.nodes); for (const listener of [...this.listeners]) listener(value); }
  watch(listener) {
    this.listeners.add(listener);
    if (this.latest !== null) listener(this.latest);
    return () => this.listeners.delete(listener);
  }
}
const state = new State();

let leave = () => {}, shown = "";
function route() {
  const hash = location.hash.replace(/^#\/?/, "");
  const view = hash.split("/")[0] || "overview";
  const known = VIEWS[view] ? view : "overview";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === known) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  leave();
  replace(main);
  document.title = `TwinFS: ${known}`;
  if (shown && shown !== known) { window.scrollTo(0, 0); main.focus({ preventScroll: true }); }
  shown = known;
  try {
    leave = VIEWS[known](main, state, hash.slice(view.length)) || (() => {});
  } catch (error) {
    leave = () => {};
    replace(main, h("p", {}, `This view could not be shown: ${error.message}`));
    throw error;
  }
}

const connection = document.getElementById("connection");
function connected(up) {
  connection.className = up ? "badge good" : "badge bad";
  connection.textContent = up ? "live" : "not connected";
}
follow("/v1/live", { overview: (value) => state.set(value) }, connected);

// --- whom the pages act as: simple authentication, as in HDFS ---
const userButton = document.getElementById("user");
function drawUser() { replace(userButton, icon("user"), currentUser() || "dr.who"); }
userButton.addEventListener("click", async () => {
  const field = h("input", { type: "text", id: "act-as", value: currentUser(), autocomplete: "username", maxlength: "64", placeholder: "dr.who" });
  if (await ask("Act as", [h("p", { class: "dim small" }, "The cluster trusts the name it is given (simple authentication)."), h("label", { for: "act-as" }, "User name"), field])) {
    setUser(field.value); drawUser(); route(); toast(`Acting as ${currentUser() || "dr.who"}`);
  }
});
drawUser();

// --- light and dark ---
const themeButton = document.getElementById("theme");
replace(themeButton, icon("sun"));
try { const saved = localStorage.getItem("twinfs-theme"); if (saved) document.documentElement.dataset.theme = saved; } catch { /* private windows may refuse */ }
themeButton.addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("twinfs-theme", document.documentElement.dataset.theme); } catch { /* see above */ }
});

window.addEventListener("hashchange", route);
route();
