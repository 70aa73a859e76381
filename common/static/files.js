// The file browser. Only the rows in sight are in the page, so a directory of any length scrolls.

import { ApiError, call, currentUser, fileUrl, upload } from "./api.js";
import { ask, badge, h, icon, name, replace, toast } from "./dom.js";
import { date, mode, size } from "./format.js";
import { fileDetail } from "./file.js";
import { encodePath } from "./overview.js";

const ROW = 41.6, PAGE = 5000, MAX_LOADED = 500000, PARALLEL = 3;

export const base = (path) => path.slice(path.lastIndexOf("/") + 1);
const join = (folder, leaf) => (folder === "/" ? `/${leaf}` : `${folder}/${leaf}`);
const TRASH = /^(\/user\/[^/]+\/\.Trash\/[^/]+)(\/.+)$/;

// Uploads go on while other views are shown.
const uploads = [];
let running = 0, drawUploads = () => {};

export function files(main, state, hash) {
  const path = decode(hash) || "/";
  let entries = [], shown = [], selected = -1, more = true, loading = null, closed = false, detail = null;
  const crumbs = h("div", { class: "crumbs grow", role: "navigation", "aria-label": "Path" });
  const filter = h("input", { type: "search", placeholder: "Filter (press /)", "aria-label": "Filter the names", oninput: () => apply() });
  const picker = h("input", { type: "file", multiple: true, hidden: true, onchange: () => { send([...picker.files].map((file) => [file, file.name])); picker.value = ""; } });
  const summary = h("div", { class: "dim small", role: "status" });
  const space = h("div", { class: "space" });
  const list = h("div", { class: "list", role: "grid", tabindex: "0", "aria-label": `Contents of ${path}` }, space);
  const listing = h("section", { class: "card listing" },
    h("div", { class: "heads", "aria-hidden": "true" }, h("span", {}), h("span", {}, "Name"), h("span", { class: "right" }, "Size"), h("span", { class: "mid" }, "Modified"), h("span", { class: "wide" }, "Owner"), h("span", { class: "wide" }, "Mode"), h("span", {})),
    list, summary);
  const side = h("div", {}), browser = h("div", { class: "browser" }, listing, side);
  const transfers = h("section", { class: "card", hidden: true, "aria-label": "Uploads" });
  const trash = `/user/${currentUser() || "dr.who"}/.Trash`;
  replace(main, h("div", { class: "row apart card" }, crumbs, filter,
    h("button", { type: "button", onclick: newFolder }, icon("plus"), "New folder"),
    h("button", { type: "button", class: "primary", onclick: () => picker.click() }, icon("upload"), "Upload"), picker,
    h("a", { class: "button", href: `#/files${encodePath(trash)}` }, icon("trash"), "Trash")), transfers, browser);
  drawCrumbs();

  function drawCrumbs() {
    const parts = path.split("/").filter(Boolean);
    replace(crumbs, h("a", { href: "#/files/" }, "/"), parts.map((part, index) => [index ? h("span", { class: "dim" }, "/") : "",
      index === parts.length - 1 ? h("strong", {}, name(part)) : h("a", { href: `#/files${encodePath(`/${parts.slice(0, index + 1).join("/")}`)}` }, name(part))]));
  }

  // --- loading and drawing ---

  async function load() {
    if (loading || !more || closed) return loading;
    loading = (async () => {
      try {
        const last = entries.length ? base(entries[entries.length - 1].path) : "";
        const page = await call("list", { path, start_after: last, limit: PAGE });
        if (closed) return;
        if (page.is_file) { location.replace(`#/files${encodePath(path.slice(0, path.lastIndexOf("/")) || "/")}`); return; }
        entries = entries.concat(page.entries);
        more = page.more;
        apply(true);
      } catch (error) {
        more = false;
        replace(summary, h("span", {}, error.message));
        if (error.code === "path-not-found" && path === trash) replace(summary, "The trash is empty.");
      } finally { loading = null; }
    })();
    await loading;
    // The rest comes by itself, a page at a time, so that filtering and the scroll bar know all of it.
    if (more && entries.length < MAX_LOADED) setTimeout(load, 0);
  }

  function apply(keep = false) {
    const wanted = filter.value.toLowerCase();
    shown = wanted ? entries.filter((entry) => base(entry.path).toLowerCase().includes(wanted)) : entries;
    if (!keep) { selected = -1; list.scrollTop = 0; }
    space.style.height = `${shown.length * ROW}px`;
    list.setAttribute("aria-rowcount", String(shown.length));
    summary.textContent = `${shown.length.toLocaleString("en")} ${shown.length === 1 ? "entry" : "entries"}${more ? ", more are being fetched" : ""}${wanted ? ` of ${entries.length.toLocaleString("en")}` : ""}`;
    draw();
  }

  let drawing = 0;
  function draw() {
    if (drawing) return;
    drawing = requestAnimationFrame(() => {
      drawing = 0;
      const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
      const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / ROW) + 10);
      const rows = [];
      for (let index = first; index < last; index += 1) rows.push(row(index));
      space.replaceChildren(...rows);
      list.setAttribute("aria-activedescendant", selected >= first && selected < last ? `entry-${selected}` : "");
    });
  }

  function row(index) {
    const entry = shown[index], folder = entry.type === "directory", leaf = base(entry.path);
    const href = folder ? `#/files${encodePath(entry.path)}` : null;
    const element = h("div", { class: `entry${folder ? " folder" : ""}`, role: "row", id: `entry-${index}`, "aria-selected": String(index === selected), "aria-rowindex": String(index + 1),
      onclick: () => { select(index); if (!folder) open(index); }, ondblclick: () => open(index), oncontextmenu: (event) => { event.preventDefault(); select(index); menu(index, event.clientX, event.clientY); } },
      icon(folder ? "folder" : "file"),
      h("span", { role: "gridcell" }, folder ? h("a", { href, tabindex: "-1" }, name(leaf)) : name(leaf), entry.under_construction ? [" ", badge("being written", "warn")] : ""),
      h("span", { class: "right", role: "gridcell" }, folder ? "" : size(entry.length)),
      h("span", { class: "dim small mid", role: "gridcell" }, date(entry.mtime_ms)),
      h("span", { class: "dim small wide", role: "gridcell" }, name(entry.owner)),
      h("span", { class: "mono dim small wide", role: "gridcell" }, mode(entry)),
      h("button", { type: "button", class: "quiet", tabindex: "-1", "aria-label": `Actions for ${leaf}`, onclick: (event) => { event.stopPropagation(); select(index); const at = event.currentTarget.getBoundingClientRect(); menu(index, at.left, at.bottom); } }, icon("more")));
    element.style.top = `${index * ROW}px`;
    return element;
  }

  function select(index) {
    selected = Math.max(0, Math.min(shown.length - 1, index));
    const top = selected * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    draw();
  }

  function open(index) {
    const entry = shown[index];
    if (!entry) return;
    if (entry.type === "directory") { location.hash = `#/files${encodePath(entry.path)}`; return; }
    if (detail) detail();
    browser.classList.add("open");
    detail = fileDetail(side, state, entry, { close: closeDetail, act: (action) => act(action, entry) });
  }

  function closeDetail() {
    if (detail) detail();
    detail = null; replace(side); browser.classList.remove("open"); list.focus();
  }

  function reload() { entries = []; more = true; selected = -1; return load(); }

  // --- keyboard ---

  list.addEventListener("scroll", draw, { passive: true });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12, Home: -1e9, End: 1e9 }[event.key];
    if (step !== undefined) { event.preventDefault(); select(selected < 0 && step < 2 ? 0 : selected + step); return; }
    const entry = shown[selected];
    if (event.key === "Backspace") { event.preventDefault(); location.hash = `#/files${encodePath(path.slice(0, path.lastIndexOf("/")) || "/")}`; }
    if (!entry) return;
    if (event.key === "Enter") { event.preventDefault(); open(selected); }
    else if (event.key === "F2") { event.preventDefault(); act("rename", entry); }
    else if (event.key === "Delete") act("trash", entry);
    else if (event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey)) {
      event.preventDefault();
      const at = document.getElementById(`entry-${selected}`).getBoundingClientRect();
      menu(selected, at.left + 40, at.bottom);
    }
  });
  const slash = (event) => { if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) { event.preventDefault(); filter.focus(); } };
  document.addEventListener("keydown", slash);

  // --- actions ---

  function menu(index, x, y) {
    const entry = shown[index], folder = entry.type === "directory";
    const before = document.activeElement;
    const box = h("div", { class: "menu", role: "menu", "aria-label": "Actions" });
    const close = () => { box.remove(); document.removeEventListener("pointerdown", outside, true); if (before && before.isConnected) before.focus(); else list.focus(); };
    const outside = (event) => { if (!box.contains(event.target)) close(); };
    const item = (label, action) => h("button", { type: "button", role: "menuitem", onclick: () => { close(); act(action, entry); } }, label);
    const inTrash = TRASH.test(entry.path);
    box.append(item(folder ? "Open" : "Show", "open"), ...(folder ? [] : [item("Download", "download")]), item("Rename or move…", "rename"), item("Permissions…", "permissions"), item("Copy the path", "copy"),
      ...(inTrash ? [item("Restore", "restore"), item("Delete for good…", "delete")] : [item("Move to trash", "trash"), item("Delete for good…", "delete")]));
    box.addEventListener("keydown", (event) => {
      const items = [...box.children], at = items.indexOf(document.activeElement);
      if (event.key === "Escape") { event.preventDefault(); close(); }
      else if (event.key === "ArrowDown") { event.preventDefault(); items[(at + 1) % items.length].focus(); }
      else if (event.key === "ArrowUp") { event.preventDefault(); items[(at + items.length - 1) % items.length].focus(); }
    });
    document.body.append(box);
    box.style.left = `${Math.max(4, Math.min(x, document.documentElement.clientWidth - box.offsetWidth - 8))}px`;
    box.style.top = `${Math.max(4, Math.min(y, innerHeight - box.offsetHeight - 8))}px`;
    document.addEventListener("pointerdown", outside, true);
    box.firstElementChild.focus();
  }

  const actions = {
    open: (entry) => open(shown.indexOf(entry)),
    download: async (entry) => { const link = h("a", { href: await fileUrl(entry.path), download: base(entry.path), rel: "noreferrer" }); document.body.append(link); link.click(); link.remove(); },
    copy: async (entry) => { await navigator.clipboard.writeText(entry.path); toast("The path is copied."); },
    rename: async (entry) => {
      const field = h("input", { type: "text", id: "new-path", value: entry.path, autocomplete: "off", spellcheck: "false" });
      setTimeout(() => field.setSelectionRange(entry.path.length - base(entry.path).length, entry.path.length));
      if (!await ask("Rename or move", [h("label", { for: "new-path" }, "New path"), field], { confirm: "Rename" })) return;
      const wanted = field.value.trim(), target = wanted.startsWith("/") ? wanted : join(path, wanted);
      if (target === entry.path) return;
      await call("rename", { source: entry.path, destination: target });
      toast("Renamed."); await reload();
    },
    trash: async (entry) => { const moved = await call("move_to_trash", { path: entry.path }); toast(`Moved to ${moved.path}`); if (detail) closeDetail(); await reload(); },
    restore: async (entry) => {
      const target = TRASH.exec(entry.path)[2], parent = target.slice(0, target.lastIndexOf("/")) || "/";
      await call("mkdirs", { path: parent });
      await call("rename", { source: entry.path, destination: target });
      toast(`Restored to ${target}`); await reload();
    },
    delete: async (entry) => {
      if (!await ask("Delete for good?", [h("p", {}, name(entry.path), entry.type === "directory" ? " and all that is in it" : "", " will be gone at once, past the trash.")], { confirm: "Delete", danger: true })) return;
      await call("delete", { path: entry.path, recursive: true });
      toast("Deleted."); if (detail) closeDetail(); await reload();
    },
    permissions: async (entry) => {
      const boxes = ["Owner", "Group", "Others"].map((who, row) => h("tr", {}, h("th", { scope: "row" }, who), ["read", "write", "execute"].map((what, column) => h("td", {}, h("input", { type: "checkbox", "aria-label": `${who}: ${what}`, checked: Boolean(entry.mode & (1 << (8 - row * 3 - column))), "data-bit": String(8 - row * 3 - column) })))));
      const table = h("table", { class: "perms" }, h("thead", {}, h("tr", {}, h("th", {}), ["read", "write", "execute"].map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, boxes));
      const owner = h("input", { type: "text", id: "owner", value: entry.owner }), group = h("input", { type: "text", id: "group", value: entry.group });
      if (!await ask(`Permissions of ${base(entry.path)}`, [table, h("label", { for: "owner" }, "Owner"), owner, h("label", { for: "group" }, "Group"), group], { confirm: "Save" })) return;
      let bits = entry.mode & 0o7000;
      for (const box of table.querySelectorAll("input")) if (box.checked) bits |= 1 << Number(box.dataset.bit);
      if (bits !== entry.mode) await call("set_mode", { path: entry.path, mode: bits });
      if (owner.value.trim() !== entry.owner || group.value.trim() !== entry.group) await call("set_owner", { path: entry.path, owner: owner.value.trim() === entry.owner ? null : owner.value.trim(), group: group.value.trim() === entry.group ? null : group.value.trim() });
      toast("Saved."); await reload();
    },
  };

  async function act(action, entry) {
    try { await actions[action](entry); } catch (error) { toast(error.message, true); }
  }

  async function newFolder() {
    const field = h("input", { type: "text", id: "folder-name", autocomplete: "off", spellcheck: "false" });
    if (!await ask("New folder", [h("label", { for: "folder-name" }, "Name"), field], { confirm: "Create" })) return;
    try {
      if (!field.value || field.value.includes("/")) throw new ApiError("invalid-path", "a name must not be empty or have a slash in it");
      await call("mkdirs", { path: join(path, field.value), parents: false });
      await reload();
    } catch (error) { toast(error.message, true); }
  }

  // --- uploads ---

  async function send(pairs) {
    for (const [file, relative] of pairs) {
      uploads.push({ file, target: join(path, relative), folder: path, sent: 0, state: "waiting", error: "", job: null });
    }
    drawUploads(); pump();
  }

  async function pump() {
    while (running < PARALLEL) {
      const next = uploads.find((one) => one.state === "waiting");
      if (!next) return;
      running += 1;
      next.state = "sending";
      (async () => {
        try {
          const parent = next.target.slice(0, next.target.lastIndexOf("/")) || "/";
          if (parent !== next.folder) await call("mkdirs", { path: parent });
          let overwrite = false;
          try { await call("stat", { path: next.target }); overwrite = await ask("Replace it?", [h("p", {}, name(next.target), " is there already.")], { confirm: "Replace" }); if (!overwrite) throw new ApiError("cancelled", "kept what was there"); } catch (error) { if (error.code !== "path-not-found") throw error; }
          next.job = upload(next.target, next.file, (sent) => { next.sent = sent; drawUploads(); }, { overwrite });
          await next.job.promise;
          next.state = "done"; next.sent = next.file.size;
        } catch (error) {
          next.state = error.code === "cancelled" ? "cancelled" : "failed"; next.error = error.message;
        } finally {
          running -= 1;
          drawUploads(); pump();
          // What was given up is deleted by the DataNode, a moment later.
          setTimeout(() => { if (!closed && next.folder === path) reload(); }, next.state === "done" ? 0 : 1500);
        }
      })();
    }
  }

  const clear = h("button", { type: "button", class: "quiet", onclick: () => { for (let at = uploads.length - 1; at >= 0; at -= 1) if (!["waiting", "sending"].includes(uploads[at].state)) uploads.splice(at, 1); drawUploads(); } }, "Clear finished");
  const rows = h("div", {});
  replace(transfers, h("div", { class: "row apart" }, h("h2", {}, "Uploads"), clear), rows);
  drawUploads = () => {
    if (closed) return;
    transfers.hidden = !uploads.length;
    const latest = uploads.slice(-8).map(uploadRow);
    // What is under somebody's finger stays the same element while its numbers change.
    if (latest.length !== rows.children.length || latest.some((row, index) => row !== rows.children[index])) replace(rows, latest);
  };
  drawUploads();

  listing.addEventListener("dragover", (event) => { event.preventDefault(); listing.classList.add("drop"); });
  listing.addEventListener("dragleave", () => listing.classList.remove("drop"));
  listing.addEventListener("drop", async (event) => {
    event.preventDefault(); listing.classList.remove("drop");
    const roots = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    if (!roots.length) { send(plain.map((file) => [file, file.name])); return; }
    const found = [];
    const walk = async (entry, prefix) => {
      if (entry.isFile) { found.push([await new Promise((resolve, reject) => entry.file(resolve, reject)), `${prefix}${entry.name}`]); return; }
      const reader = entry.createReader();
      for (;;) {
        const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!batch.length) return;
        for (const inner of batch) await walk(inner, `${prefix}${entry.name}/`);
      }
    };
    try { for (const root of roots) await walk(root, ""); send(found); } catch (error) { toast(`Could not read what was dropped: ${error.message}`, true); }
  });

  const resized = new ResizeObserver(draw);
  resized.observe(list);
  load();
  return () => { closed = true; resized.disconnect(); document.removeEventListener("keydown", slash); if (detail) detail(); drawUploads = () => {}; };
}

/** The row of an upload, made once, with its present numbers. */
function uploadRow(one) {
  if (!one.row) {
    one.parts = { state: h("span", {}), facts: h("span", { class: "dim small" }), done: h("span", {}) };
    one.parts.bar = h("div", { class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-label": `Upload of ${one.file.name}` }, one.parts.done);
    one.parts.cancel = h("button", { type: "button", "aria-label": `Cancel the upload of ${one.file.name}`, onclick: () => { if (one.job) one.job.cancel(); else one.state = "cancelled"; drawUploads(); } }, "Cancel");
    one.row = h("div", { class: "upload" }, h("div", {}, name(one.target), " ", one.parts.state, " ", one.parts.facts), one.parts.bar, one.parts.cancel);
  }
  const { state, facts, done, bar, cancel } = one.parts;
  const share = one.file.size ? one.sent / one.file.size : one.state === "done" ? 1 : 0;
  state.className = `badge ${{ done: "good", failed: "bad", cancelled: "warn" }[one.state] || ""}`;
  state.textContent = one.state;
  facts.textContent = `${size(one.sent)} of ${size(one.file.size)} ${one.error && one.error !== one.state ? one.error : ""}`;
  done.style.width = `${(share * 100).toFixed(1)}%`;
  bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  cancel.hidden = !["waiting", "sending"].includes(one.state);
  return one.row;
}

function decode(hash) {
  try { return hash.split("/").map(decodeURIComponent).join("/").replace(/\/+$/, "") || "/"; } catch { return "/"; }
}

window.addEventListener("beforeunload", (event) => { if (uploads.some((one) => one.state === "sending")) event.preventDefault(); });
