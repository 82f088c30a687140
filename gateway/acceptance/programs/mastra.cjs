// @mastra/daytona: the sandbox of a Mastra workspace, with its own lifecycle,
// commands and background processes. Workspaces call the methods with an
// underscore, which keep the status.
'use strict'
const { load, main, same, has } = require('./harness.cjs')
const { DaytonaSandbox } = load('@mastra/daytona')

main(async (step) => {
  const options = { id: `mastra-${process.pid}-${Date.now()}`, language: 'python', env: { GREETING: 'hello there' }, timeout: 30_000 }
  const sb = new DaytonaSandbox(options)
  const started = await step('create', async () => {
    await sb._start()
    same([sb.status, await sb.isReady()], ['running', true])
  })
  if (!started) return
  await step('exec', async () => {
    const r = await sb.executeCommand('sh', ['-c', 'echo "$GREETING"; echo oh >&2; exit 3'])
    same([r.exitCode, r.success], [3, false])
    has(r.stdout, 'hello there')
    has(r.stderr, 'oh')
  })
  await step('stream', async () => {
    let out = ''
    const r = await sb.executeCommand('sh', ['-c', 'for i in 1 2 3; do echo out$i; sleep 0.1; done'], { onStdout: (s) => { out += s } })
    same([r.exitCode, out], [0, 'out1\nout2\nout3\n'])
  })
  await step('session', async () => {
    const p = await sb.processes.spawn('read line; echo "got $line"')
    await p.sendStdin('a word\n')
    has((await p.wait()).stdout, 'got a word')
    const long = await sb.processes.spawn('sleep 100')
    same((await sb.processes.list()).some((x) => x.pid === long.pid), true)
    same(await long.kill(), true)
  })
  await step('files', async () => {
    await sb.executeCommand('sh', ['-c', 'mkdir -p notes && echo text > notes/a.txt'])
    has((await sb.instance.fs.downloadFile('notes/a.txt')).toString(), 'text')
  })
  await step('find', async () => {
    const again = new DaytonaSandbox(options)
    await again.start()
    has((await again.executeCommand('cat', ['notes/a.txt'])).stdout, 'text')
    same(again.instance.id, sb.instance.id)
  })
  await step('stop and start', async () => {
    await sb._stop()
    await sb._start()
    has((await sb.executeCommand('cat', ['notes/a.txt'])).stdout, 'text')
  })
  await step('revive', async () => { // one that stopped behind its back
    await sb.instance.stop()
    has((await sb.executeCommand('cat', ['notes/a.txt'])).stdout, 'text')
  })
  await step('delete', () => sb._destroy())
})
