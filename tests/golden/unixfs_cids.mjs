// Made unixfs_cids.json: CIDs as npm's ipfs-unixfs-importer makes them, of contents that tests/unit/common/ipld/contents.py
// makes again by the same rule. To repeat:
//   npm install ipfs-unixfs-importer@17.1.1 blockstore-core@7 @noble/hashes@2 multiformats@14 && node unixfs_cids.mjs > unixfs_cids.json
// "twinfs" is the profile unixfs-v1-2025 with the importer's one call of sha256 replaced by BLAKE3 (--blake3 does it, by a loader hook).
import { register } from 'node:module'
if (process.argv.includes('--blake3')) {
  register('data:text/javascript,' + encodeURIComponent(`
    export async function load (url, context, next) {
      const found = await next(url, context)
      if (!url.endsWith('ipfs-unixfs-importer/dist/src/utils/persist.js')) return found
      const source = String(found.source ?? (await import('node:fs')).readFileSync(new URL(url)))
      return { ...found, source: source.replace("import { sha256 } from 'multiformats/hashes/sha2';",
        "import { from } from 'multiformats/hashes/hasher'; import { blake3 } from '@noble/hashes/blake3.js';" +
        "const sha256 = from({ name: 'blake3', code: 0x1e, encode: (b) => blake3(b) });") }
    }`))
}
const { importer } = await import('ipfs-unixfs-importer')
const { MemoryBlockstore } = await import('blockstore-core')
const M = 1024 * 1024

function bytes (seed, length) {
  const out = Buffer.alloc(length)
  let x = seed >>> 0
  for (let i = 0; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0
    out[i] = x >>> 24
  }
  return out
}

function repeated (seed, length) { // a pattern of 1 MiB again and again
  const unit = bytes(seed, M)
  const out = Buffer.alloc(length)
  for (let at = 0; at < length; at += M) unit.copy(out, at, 0, Math.min(M, length - at))
  return out
}

async function * stream (seed, whole, rest) {
  const unit = bytes(seed, M)
  for (let i = 0; i < whole; i++) yield unit
  if (rest) yield unit.subarray(0, rest)
}

async function root (input, options) {
  const store = new MemoryBlockstore()
  let last
  for await (const entry of importer(input, store, options)) last = entry
  let blocks = 0
  for await (const _ of store.getAll()) blocks++
  return { cid: last.cid.toString(), blocks }
}

function names (count, name) {
  return Array.from({ length: count }, (_, i) => ({ path: 'd/' + name(i), content: bytes(i, 3) }))
}

async function all (profile) {
  const o = { profile }
  const file = (content) => root([{ content }], o)
  const found = {
    empty: await file(Buffer.alloc(0)),
    one: await file(bytes(1, 1)),
    chunk: await file(repeated(2, M)),
    'chunk+1': await file(repeated(2, M + 1)),
    three: await file(repeated(3, 3 * M - 7)),
    quarter: await file(repeated(5, M / 4)),
    'quarter+1': await file(repeated(5, M / 4 + 1)),
    '174 quarters': await file(repeated(6, 174 * M / 4)),
    '174 quarters+1': await file(repeated(6, 174 * M / 4 + 1)),
    directory: await root([
      { path: 'd/a', content: bytes(10, 100) },
      { path: 'd/b.txt', content: bytes(11, 0) },
      { path: 'd/big', content: repeated(12, 2 * M + 5) }], o),
    nested: await root([
      { path: 'd/x/y/z', content: bytes(13, 10) },
      { path: 'd/x/w', content: bytes(14, 20) },
      { path: 'd/top', content: bytes(15, 30) },
      { path: 'd/e' }], o),
    unicode: await root(['é', 'e\u0301', '日本語', '😀 smile', 'Z', 'a', '\uffee', 'a b+c%']
      .map((name, i) => ({ path: 'd/' + name, content: bytes(20 + i, 5 + i) })), o),
    wide: await root(names(10000, (i) => 'name-' + i), o),
    symlink: await root([{ path: 'd/link', link: 'target/of it' }, { path: 'd/file', content: bytes(30, 4) }], o)
  }
  // 1024 of the profile's own chunks: 1 GiB of 1 MiB each, 256 MiB of 256 KiB each
  const units = profile === 'unixfs-v0-2015' ? 256 : 1024
  found['1024 chunks'] = await file(stream(4, units, 0))
  found['1024 chunks+1'] = await file(stream(4, units, 1))
  for (const count of [4000, 4400, 4500, 5000, 5500, 6000]) {
    found['names ' + count] = await root(names(count, (i) => 'f' + String(i).padStart(6, '0')), o)
  }
  return found
}

const made = process.argv.includes('--blake3')
  ? { twinfs: await all('unixfs-v1-2025') }
  : { 'unixfs-v1-2025': await all('unixfs-v1-2025'), 'unixfs-v0-2015': await all('unixfs-v0-2015') }
console.log(JSON.stringify(made, null, 1))
