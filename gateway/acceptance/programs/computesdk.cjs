// @computesdk/daytona: a provider of ComputeSDK, through its sandbox objects.
'use strict'
const { load, main, same, has } = require('./harness.cjs')
const { daytona } = load('@computesdk/daytona')

main(async (step) => {
  const provider = daytona({ apiKey: process.env.DAYTONA_API_KEY, runtime: 'python' })
  const name = `compute-${process.pid}-${Date.now()}`
  const sb = await step('create', () => provider.sandbox.create({ runtime: 'python', name, envs: { GREETING: 'hello there' }, metadata: { run: name } }))
  if (!sb) return
  await step('exec', async () => {
    const r = await sb.runCommand('sh -c \'echo "$GREETING $MORE"; pwd; exit 3\'', { cwd: '/tmp', env: { MORE: "it's" } })
    same([r.exitCode, r.stdout], [3, "hello there it's\n/tmp\n"])
  })
  await step('files', async () => {
    const f = sb.filesystem
    await f.mkdir('/tmp/notes')
    await f.writeFile('/tmp/notes/a.txt', 'text ü\n')
    same(await f.readFile('/tmp/notes/a.txt'), 'text ü\n')
    same((await f.readdir('/tmp/notes')).map((x) => [x.name, x.type]), [['a.txt', 'file']])
    same(await f.exists('/tmp/notes/a.txt'), true)
    await f.remove('/tmp/notes')
    same(await f.exists('/tmp/notes/a.txt'), false)
  })
  await step('preview', async () => {
    const url = await sb.getUrl({ port: 3000 })
    has(url, 'http')
  })
  await step('find', async () => {
    same((await provider.sandbox.getById(sb.sandboxId)).sandboxId, sb.sandboxId)
    same((await provider.sandbox.list()).some((x) => x.sandboxId === sb.sandboxId), true)
  })
  await step('delete', async () => {
    await sb.destroy()
    same(await provider.sandbox.getById(sb.sandboxId), null)
  })
})
