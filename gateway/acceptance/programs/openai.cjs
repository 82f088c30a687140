// @openai/agents-extensions: the Daytona client of the Agents SDK's sandboxes.
// Its session is called directly, as the SDK's shell and file tools call it.
// Without a snapshot the package asks for an image from a public registry.
'use strict'
const { load, main, same, has } = require('./harness.cjs')
const { DaytonaSandboxClient } = load('@openai/agents-extensions/sandbox/daytona')
const { Manifest, file } = load('@openai/agents/sandbox')

main(async (step) => {
  const client = new DaytonaSandboxClient({ sandboxSnapshotName: 'atoll-small', env: { GREETING: 'hello there' }, timeoutSec: 30 })
  const manifest = new Manifest({ entries: { 'notes/a.txt': file({ content: 'one\ntwo\n' }) } })
  const sb = await step('create', () => client.create({ manifest }))
  if (!sb) return
  await step('exec', async () => {
    has(await sb.execCommand({ cmd: 'echo "$GREETING"; exit 3' }), 'hello there')
    has(await sb.execCommand({ cmd: 'exit 3' }), 'exited with code 3')
  })
  await step('files', async () => {
    same(Buffer.from(await sb.readFile({ path: 'notes/a.txt' })).toString(), 'one\ntwo\n')
    await sb.materializeEntry({ path: 'notes/b.txt', entry: file({ content: 'more ü\n' }) })
    has(await sb.execCommand({ cmd: 'cat notes/b.txt' }), 'more ü')
    same([await sb.pathExists('notes/b.txt'), await sb.pathExists('notes/none')], [true, false])
  })
  await step('session', async () => {
    const shown = await sb.execCommand({ cmd: 'sh', tty: true, yieldTimeMs: 500 })
    const sessionId = Number(/session ID (\d+)/i.exec(shown)?.[1])
    has(await sb.writeStdin({ sessionId, chars: 'echo to-$((40+2))\n', yieldTimeMs: 2000 }), 'to-42')
    await sb.writeStdin({ sessionId, chars: 'exit\n', yieldTimeMs: 500 })
  })
  await step('archive', async () => {
    const tar = await sb.persistWorkspace()
    await sb.execCommand({ cmd: 'rm -rf notes' })
    await sb.hydrateWorkspace(tar)
    has(await sb.execCommand({ cmd: 'cat notes/a.txt' }), 'two')
  })
  await step('preview', async () => {
    const exposed = await client.create({ options: { sandboxSnapshotName: 'atoll-small', exposedPorts: [3000] } })
    try { has((await exposed.resolveExposedPort(3000)).host, '.') } finally { await exposed.delete() }
  })
  await step('find', async () => {
    const again = await client.resume(await client.deserializeSessionState(await client.serializeSessionState(sb.state)))
    has(await again.execCommand({ cmd: 'cat notes/a.txt' }), 'two')
  })
  await step('delete', () => sb.delete())
})
