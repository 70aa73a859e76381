// Helia fetches a tree by delegated routing and trustless gateways: node get.mjs ROUTER CID [IPNS-NAME]
import { withHTTP } from '@helia/http'
import { ipns } from '@helia/ipns'
import { unixfs } from '@helia/unixfs'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'
import { createHash } from 'node:crypto'

// When Helia has found enough it ends a lookup that still runs by `body.cancel()`, on a stream that it is itself reading: that promise is
// rejected, and nobody looks at it (@helia/delegated-routing-v1-http-api-client, client.js). It concerns no byte and no answer.
process.on('unhandledRejection', (error) => {
  if (error?.code !== 'ERR_INVALID_STATE' || !error.stack.includes('delegated-routing-v1-http-api-client')) {
    throw error
  }
})

const [router, text, name] = process.argv.slice(2)
const helia = await withHTTP(createHeliaLight(), {
  delegatedRouters: [router],
  recursiveGateways: [],
  allowInsecure: true,
  allowLocal: true
}).start()
const signal = AbortSignal.timeout(240_000)
const fs = unixfs(helia)

async function walk (cid, path) {
  const stat = await fs.stat(cid, { signal })
  if (stat.type === 'directory') {
    for await (const entry of fs.ls(cid, { signal })) {
      await walk(entry.cid, `${path}/${entry.name}`)
    }
    return
  }
  const hash = createHash('sha256')
  for await (const piece of fs.cat(cid, { signal })) {
    hash.update(piece)
  }
  console.log(JSON.stringify({ path, sha256: hash.digest('hex') }))
}

await walk(CID.parse(text), '')
if (name !== undefined) {
  const key = CID.parse(name, (await import('multiformats/bases/base36')).base36)
  for await (const found of ipns(helia).resolve(key, { signal })) {
    console.log(JSON.stringify({ name, value: new TextDecoder().decode(found.record.value) }))
    break
  }
}
await helia.stop()
