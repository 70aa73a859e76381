// The content side: bytes named by their hash.

import { h, replace } from "./dom.js";

export function content(main) {
  replace(main, h("h1", {}, "Content"), h("section", { class: "card" }, h("p", {}, "Every file has a second name: the hash of its bytes. `dfs checksum` prints it.")));
  return () => {};
}
