// Makes a sandbox for every line on standard input and prints how long create()
// took. The argument is the directory with node_modules.
'use strict'
const { createRequire } = require('node:module')
const { Daytona } = createRequire(process.argv[1] + '/package.json')('@daytona/sdk')

async function main() {
  const d = new Daytona()
  for await (const _ of require('node:readline').createInterface({ input: process.stdin })) {
    const began = performance.now()
    const sb = await d.create()
    const ms = performance.now() - began
    console.log(JSON.stringify({ id: sb.id, state: sb.state, ms }))
  }
}

main().then(() => process.exit(0), (e) => { console.error(e); process.exit(1) })
