// Made packed.car (ipfs-car of a small directory), values.json (dag-cbor and dag-json encodings). To repeat:
//   npm install ipfs-car@3.1.0 @ipld/car@5.4.7 @ipld/dag-cbor@9.2.7 @ipld/dag-json@11.0.1 multiformats@14 && node car_files.mjs
import { createDirectoryEncoderStream, CAREncoderStream } from 'ipfs-car'
import { writeFileSync } from 'node:fs'
import * as cbor from '@ipld/dag-cbor'
import * as json from '@ipld/dag-json'
import { CID } from 'multiformats/cid'

const file = (name, text) => ({ name, stream: () => new Blob([text]).stream() })
const blocks = []
await createDirectoryEncoderStream([file('hello.txt', 'hello\n'), file('sub/empty', ''), file('sub/ünïcode', 'x'.repeat(3000))])
  .pipeTo(new WritableStream({ write (block) { blocks.push(block) } }))
const root = blocks.at(-1).cid
const parts = []
const source = new ReadableStream({ pull (c) { for (const b of blocks) c.enqueue(b); c.close() } })
await source.pipeThrough(new CAREncoderStream([root])).pipeTo(new WritableStream({ write (p) { parts.push(p) } }))
writeFileSync('packed.car', Buffer.concat(parts))

const cid = CID.parse('bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku')
const values = [
  null, true, 0, 23, 24, 255, 256, 65535, 65536, 4294967295, 4294967296, -1, -24, -25, 1.5, -4.25, 'text ü', [], {},
  { b: 1, a: [1, 2, { c: null }], longer: 'x' }, { link: cid, list: [cid] }, new Uint8Array([0, 1, 255])
]
writeFileSync('values.json', JSON.stringify(values.map((v) => ({
  cbor: Buffer.from(cbor.encode(v)).toString('hex'), json: Buffer.from(json.encode(v)).toString()
})), null, 1) + '\n')
