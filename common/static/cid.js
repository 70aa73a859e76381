// CIDs and dag-pb, as far as the pages need them: parse, print, and the links of a node.

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567", BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz";

/** base64 text to bytes, or bytes to base64 text. */
export function base64(value) {
  if (typeof value === "string") return Uint8Array.from(atob(value), (character) => character.charCodeAt(0));
  let text = "";
  for (const byte of value) text += String.fromCharCode(byte);
  return btoa(text);
}

function fromBase(text, alphabet) {
  let value = 0n, zeros = 0;
  for (const character of text) {
    const digit = alphabet.indexOf(character);
    if (digit < 0) throw new Error("This is no CID: it has characters that none has.");
    value = value * BigInt(alphabet.length) + BigInt(digit);
  }
  while (zeros < text.length && text[zeros] === alphabet[0]) zeros += 1;
  const bytes = [];
  for (; value > 0n; value >>= 8n) bytes.unshift(Number(value & 255n));
  return Uint8Array.from([...new Array(zeros).fill(0), ...bytes]);
}

function fromBase32(text) {
  const bytes = [];
  let bits = 0, value = 0;
  for (const character of text) {
    const digit = BASE32.indexOf(character);
    if (digit < 0) throw new Error("This is no CID: it has characters that none has.");
    value = (value << 5) | digit; bits += 5;
    if (bits >= 8) { bits -= 8; bytes.push((value >> bits) & 255); value &= (1 << bits) - 1; }
  }
  return Uint8Array.from(bytes);
}

export function varint(bytes, at) {
  let value = 0, scale = 1;
  for (let index = at; index < at + 9 && index < bytes.length; index += 1) {
    value += (bytes[index] & 127) * scale;
    if (bytes[index] < 128) return [value, index + 1];
    scale *= 128;
  }
  throw new Error("a number is malformed");
}

/** A CID of text or bytes: {version, codec, multihash, hash}. */
export function parseCid(given) {
  let bytes = given;
  if (typeof given === "string") {
    const text = given.replace(/^ipfs:\/\//, "").replace(/^\/ipfs\//, "");
    if (text.length < 8 || text.length > 200) throw new Error("This is no CID.");
    if (text.startsWith("Qm")) bytes = fromBase(text, BASE58);
    else if (text[0] === "b") bytes = fromBase32(text.slice(1));
    else if (text[0] === "z") bytes = fromBase(text.slice(1), BASE58);
    else if (text[0] === "k") bytes = fromBase(text.slice(1), BASE36);
    else throw new Error("This is no CID: it begins with neither b, k, z nor Qm.");
  }
  if (bytes[0] === 0x12 && bytes[1] === 0x20 && bytes.length === 34) return { version: 0, codec: 0x70, multihash: bytes, hash: 0x12 };
  try {
    const [version, one] = varint(bytes, 0), [codec, two] = varint(bytes, one), [hash, three] = varint(bytes, two), [length, four] = varint(bytes, three);
    if (version !== 1 || bytes.length !== four + length) throw new Error();
    return { version, codec, multihash: bytes.slice(two), hash };
  } catch { throw new Error("This is no CID: its bytes are malformed."); }
}

export function formatCid(cid) {
  const head = [1];
  let codec = cid.codec;
  while (codec > 127) { head.push((codec & 127) | 128); codec >>= 7; }
  head.push(codec);
  let text = "b", bits = 0, value = 0;
  for (const byte of [...head, ...cid.multihash]) {
    value = (value << 8) | byte; bits += 8;
    while (bits >= 5) { bits -= 5; text += BASE32[(value >> bits) & 31]; value &= (1 << bits) - 1; }
  }
  return bits ? text + BASE32[(value << (5 - bits)) & 31] : text;
}

/** Fields of a protobuf message: [number, value], the value a number or bytes. */
function* fields(bytes) {
  for (let at = 0; at < bytes.length;) {
    const [key, next] = varint(bytes, at), kind = key & 7;
    if (kind === 0) { const [value, end] = varint(bytes, next); at = end; yield [key >> 3, value]; }
    else if (kind === 2) {
      const [length, start] = varint(bytes, next);
      if (start + length > bytes.length) throw new Error("The node is malformed.");
      at = start + length; yield [key >> 3, bytes.subarray(start, at)];
    } else throw new Error("The node is malformed.");
  }
}

/** A dag-pb node: {data, links: [{hash, name, tsize}]}. */
export function decodePb(bytes) {
  const node = { data: null, links: [] }, text = new TextDecoder();
  for (const [number, value] of fields(bytes)) {
    if (number === 1) node.data = value;
    if (number === 2) {
      const link = { hash: null, name: "", tsize: null };
      for (const [inner, part] of fields(value)) {
        if (inner === 1) link.hash = part;
        if (inner === 2) link.name = text.decode(part);
        if (inner === 3) link.tsize = part;
      }
      if (link.hash) node.links.push(link);
    }
  }
  return node;
}

const KINDS = ["raw", "directory", "file", "metadata", "symlink", "sharded directory"];

/** What the UnixFS data of a node says: {kind, size}. */
export function fileFacts(data) {
  const facts = { kind: "node", size: null };
  if (data) for (const [number, value] of fields(data)) {
    if (number === 1) facts.kind = KINDS[value] || "node";
    if (number === 3) facts.size = value;
  }
  return facts;
}
